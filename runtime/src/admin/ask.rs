//! The asking end: the admin port of this host.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, bail};

/// The daemon is on the same host, and answers from memory.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More than any answer has.
const LONGEST: u64 = 64 * 1024;

/// What is at `/status` of the `daemon` whose admin port is `port` of this host.
///
/// # Errors
/// It does not answer, in a sentence.
pub fn ask(daemon: &str, port: u16) -> anyhow::Result<String> {
    let answer = fetch(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).with_context(|| {
        format!("no {daemon} answers at port {port} of this host (HEALTH_PORT); run it where one does, as with kubectl exec")
    })?;
    match answer.split_once("\r\n\r\n") {
        Some((head, text)) if head.starts_with("HTTP/1.0 200") => Ok(text.to_owned()),
        _ => bail!("what answers at port {port} of this host (HEALTH_PORT) is no {daemon}"),
    }
}

fn fetch(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    #[test]
    fn only_an_answer_that_is_one_is_taken() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            for answer in ["HTTP/1.0 200 OK\r\nx: y\r\n\r\nall is well\n", "HTTP/1.0 404 Not Found\r\n\r\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 23];
                stream.read_exact(&mut request).unwrap();
                assert_eq!(&request, b"GET /status HTTP/1.0\r\n\r");
                stream.read_exact(&mut [0]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(ask("aggregator", port).unwrap(), "all is well\n");
        assert!(ask("aggregator", port).unwrap_err().to_string().contains("is no aggregator"));
        server.join().unwrap();
        let closed = ask("aggregator", port).unwrap_err().to_string();
        assert!(closed.contains(&port.to_string()) && closed.contains("HEALTH_PORT"), "{closed}");
    }
}
