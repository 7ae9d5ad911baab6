//! Admission reviews sent at fixed times, however long the answers take: nobody waits for a slow one, so it delays
//! those behind it in the figures as it would in a cluster.

use std::{
    collections::VecDeque,
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use crate::report::Spread;

/// As many as an API server keeps to a webhook under such a load.
const CONNECTIONS: usize = 8;

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longer than any answer's head.
const MOST_HEAD: usize = 8 * 1024;

/// A connection that is kept.
struct Connection {
    socket: TcpStream,
    tls: ClientConnection,
    /// What has come of an answer.
    input: Vec<u8>,
    /// When what is not answered yet had to be sent, oldest first.
    due: VecDeque<Instant>,
}

/// Sends the review in the file `review` to the webhook at `address` `rate` times a second for `seconds`, in turn over
/// eight connections, and returns the 50th and 99th percentile from the time at which a request had to be sent to its
/// answer, in milliseconds. The webhook's certificate must be the one in the PEM file `certificate`, for "localhost".
///
/// # Errors
/// A file can't be read, a connection ends, or a request is not answered with 200.
pub(crate) fn measure(
    address: SocketAddr,
    certificate: &str,
    review: &str,
    rate: u32,
    seconds: u32,
) -> anyhow::Result<[f64; 2]> {
    ensure!(rate > 0 && seconds > 0, "a rate and seconds are at least 1");
    let roots = kestrel_runtime::tls::roots(&fs::read(certificate)?)?;
    let config = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let request = request(&fs::read(review).with_context(|| review.to_owned())?);
    let mut connections =
        (0..CONNECTIONS).map(|_| Connection::open(address, &config)).collect::<anyhow::Result<Vec<_>>>()?;
    // The first on a connection is not counted: it pays for the handshake.
    let mut warm = Vec::new();
    for connection in &mut connections {
        connection.send(&request, Instant::now())?;
    }
    drain(&mut connections, &mut warm)?;

    let all = rate as usize * seconds as usize;
    let mut latencies = Vec::with_capacity(all);
    let begin = Instant::now();
    for number in 0..all {
        let due = begin + Duration::from_secs(1).mul_f64(number as f64 / f64::from(rate));
        // Without a sleep: a processor that has to be woken would be part of the figure.
        while Instant::now() < due {
            take(&mut connections, &mut latencies)?;
        }
        connections[number % CONNECTIONS].send(&request, due)?;
    }
    drain(&mut connections, &mut latencies)?;
    Ok([0.5, 0.99].map(|part| Spread::percentile(&latencies, part)))
}

/// The whole of an HTTP/1.1 request with this body.
fn request(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request = format!(
        "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Takes what has come on all connections.
fn take(connections: &mut [Connection], latencies: &mut Vec<f64>) -> anyhow::Result<()> {
    connections.iter_mut().try_for_each(|connection| connection.take(latencies))
}

/// Takes all answers that are still to come.
fn drain(connections: &mut [Connection], latencies: &mut Vec<f64>) -> anyhow::Result<()> {
    let begin = Instant::now();
    while connections.iter().any(|connection| !connection.due.is_empty()) {
        ensure!(begin.elapsed() < PATIENCE, "a request is not answered within {} s", PATIENCE.as_secs());
        take(connections, latencies)?;
    }
    Ok(())
}

impl Connection {
    fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let mut socket = TcpStream::connect(address).with_context(|| address.to_string())?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut tls = ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?;
        tls.complete_io(&mut socket).context("the webhook's TLS")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, tls, input: Vec::new(), due: VecDeque::new() })
    }

    fn send(&mut self, request: &[u8], due: Instant) -> anyhow::Result<()> {
        self.due.push_back(due);
        self.tls.writer().write_all(request)?;
        self.flush()
    }

    /// What the socket has no room for stays with the TLS session until the next look.
    fn flush(&mut self) -> anyhow::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => bail!("the webhook takes no more requests: {error}"),
            }
        }
        Ok(())
    }

    /// Takes the answers that have come.
    fn take(&mut self, latencies: &mut Vec<f64>) -> anyhow::Result<()> {
        if self.due.is_empty() {
            return Ok(());
        }
        self.flush()?;
        match self.tls.read_tls(&mut self.socket) {
            Ok(0) => bail!("the webhook ended a connection"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => bail!("the webhook's answer: {error}"),
        }
        self.tls.process_new_packets()?;
        match self.tls.reader().read_to_end(&mut self.input) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
            _ => {}
        }
        while let Some(length) = answer(&self.input)? {
            let due = self.due.pop_front().context("an answer to nothing")?;
            latencies.push(due.elapsed().as_secs_f64() * 1000.0);
            self.input.drain(..length);
        }
        Ok(())
    }
}

/// Length of the answer at the beginning of `input`, if all of it is there. Its length is told, or it is in chunks, whose
/// text is JSON and so has no line ends of HTTP in it.
fn answer(input: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = end_of(b"\r\n\r\n", input) else {
        ensure!(input.len() < MOST_HEAD, "an answer's head has no end");
        return Ok(None);
    };
    let text = str::from_utf8(&input[..head])?.to_ascii_lowercase();
    ensure!(
        text.starts_with("http/1.1 200 "),
        "the webhook answers {:?}",
        text.lines().next().unwrap_or_default()
    );
    let mut fields = text.lines().filter_map(|line| line.split_once(": "));
    let length = match fields.find(|(name, _)| matches!(*name, "content-length" | "transfer-encoding")) {
        Some(("content-length", length)) => Some(length.parse()?),
        Some((_, "chunked")) => end_of(b"\r\n0\r\n\r\n", &input[head..]),
        _ => bail!("an answer without its length"),
    };
    Ok(length.map(|length: usize| head + length).filter(|length| input.len() >= *length))
}

/// Where the first `sign` in `input` ends.
fn end_of(sign: &[u8], input: &[u8]) -> Option<usize> {
    Some(input.windows(sign.len()).position(|piece| piece == sign)? + sign.len())
}

/// Reads the command line's words, and prints the two figures.
///
/// # Errors
/// Words are missing or wrong, or as of [`measure`].
pub(crate) fn run(words: &[String]) -> anyhow::Result<()> {
    let [address, certificate, review, rate, seconds] = words else {
        bail!("usage: kestrel-bench admission ADDRESS CERTIFICATE REVIEW RATE SECONDS");
    };
    let [median, late] = measure(address.parse()?, certificate, review, rate.parse()?, seconds.parse()?)?;
    writeln!(io::stdout(), "{median:.3} {late:.3}")?;
    Ok(())
}
