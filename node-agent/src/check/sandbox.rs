//! Whether what is asked of this node is read as confined as it is told: a process that seals itself like one that
//! reads tries what it must not be able to do, and another that does not seal itself tries the same, without which
//! nothing would be proved.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    process::{self, Command, ExitCode},
    thread,
    time::Duration,
};

use kestrel_runtime::{check::Finding, config::Source};
use rustix::process::{Pid, getpgrp, setpgid};

use crate::{
    config::Config,
    reads::PROGRAM,
    sandbox::{self, Limits, Printed, Reach},
};

const SUBJECT: &str = "sandbox";
const LIMITS: Limits = Limits { time: Duration::from_secs(20), bytes: 16 * 1024 };
/// Of a process that never ends, which needs some of it to begin.
const SHORT: Limits = Limits { time: Duration::from_secs(5), bytes: 1024 };
/// Where nothing answers.
const CONNECT: Duration = Duration::from_secs(3);
/// Where an account's token is, if a pod has one.
const ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const REMEDY: &str = "let nothing be read (operator.executor.enabled: false), and report this line with what uname -a says on the node";

/// A line for each thing that is tried.
pub(super) async fn findings(config: &Config, source: &dyn Source) -> Vec<Finding> {
    let mut attempts = vec![
        ("read", config.token_file.display().to_string()),
        ("read", ACCOUNT_TOKEN.to_owned()),
        ("read", format!("/proc/{}/environ", process::id())),
        ("list", config.pod_logs.display().to_string()),
        ("write into", config.state.display().to_string()),
        ("write into", "/dev/shm".to_owned()),
        ("write into", "/tmp".to_owned()),
        ("start", "a program".to_owned()),
        ("make", "a thread".to_owned()),
    ];
    attempts.extend(api_server(source).map(|address| ("connect to", address.to_string())));
    // The last: what is in another group does not end with its own.
    attempts.push(("join group", getpgrp().to_string()));
    let (free, (has_landlock, sealed)) = match (
        tried("free", &attempts).await,
        tried("sealed", &attempts).await,
    ) {
        (Ok((_, free)), Ok(sealed)) => (free, sealed),
        (Err(why), _) | (_, Err(why)) => {
            let remedy = "no read of this node is answered then; its kernel has to have seccomp, and the pod memory for one more process";
            return vec![Finding::failed(SUBJECT, format!("{why}: {remedy}"))];
        }
    };
    let mut findings = vec![match has_landlock {
        true => Finding::ok(SUBJECT, "seccomp and Landlock confine each process that reads this node"),
        false => Finding::caution(
            SUBJECT,
            "seccomp alone confines each process that reads this node: its kernel has no Landlock (5.13, switched on by lsm=), or the \
             container runtime's profile refuses it",
        ),
    }];
    let outcomes = sealed.iter().zip(&free);
    let judged =
        attempts.iter().zip(outcomes).map(|((what, on), (sealed, free))| judge(what, on, sealed, free));
    findings.extend(judged);
    findings.push(deadline().await);
    findings
}

/// The API server's address, as the kubelet tells it to each container.
fn api_server(source: &dyn Source) -> Option<SocketAddr> {
    let address: IpAddr = source.get("KUBERNETES_SERVICE_HOST")?.parse().ok()?;
    Some(SocketAddr::new(address, source.get("KUBERNETES_SERVICE_PORT")?.parse().ok()?))
}

/// An attempt by what came of it in the process that is sealed, and in the one that is not.
fn judge(what: &str, on: &str, sealed: &Result<(), String>, free: &Result<(), String>) -> Finding {
    match (sealed, free) {
        (Ok(()), _) => Finding::failed(SUBJECT, format!("a process in it can {what} {on}: {REMEDY}")),
        (Err(why), Ok(())) => {
            Finding::ok(SUBJECT, format!("a process in it can't {what} {on}, which one outside can ({why})"))
        }
        (Err(_), Err(why)) => {
            Finding::note(SUBJECT, format!("not tried here: {what} {on}, which fails outside too ({why})"))
        }
    }
}

/// What came of attempts, made by a process that begins as one that reads: whether it has Landlock, and each outcome.
async fn tried(how: &str, attempts: &[(&str, String)]) -> Result<(bool, Vec<Result<(), String>>), String> {
    let words = attempts.iter().flat_map(|(what, on)| [*what, on]);
    let words: Vec<_> = ["try", how].into_iter().chain(words).collect();
    let Printed { text, problem, .. } = sandbox::run(Path::new(PROGRAM), &words, b"", LIMITS).await?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    let has_landlock = lines.next() == Some("true");
    let outcomes: Vec<_> =
        lines.map(|line| if line == COULD { Ok(()) } else { Err(line.to_owned()) }).collect();
    match outcomes.len() == attempts.len() {
        true => Ok((has_landlock, outcomes)),
        false => Err(format!("the process that tries it ended early: {problem}")),
    }
}

/// A process in a group of its own that never ends, nor does what it started.
async fn deadline() -> Finding {
    let word = format!("kestrel-check-{}", process::id());
    let words = ["try", "free", "hang", &word];
    let run = sandbox::run(Path::new(PROGRAM), &words, b"", SHORT);
    let (ended, has_begun) = tokio::join!(run, become_so(&word, 2));
    let has_gone = become_so(&word, 0).await;
    let seconds = SHORT.time.as_secs();
    match (ended, has_begun, has_gone) {
        (Err(_), true, true) => {
            let said = format!("one that never ends was killed after {seconds} s, with what it had started");
            Finding::ok(SUBJECT, said)
        }
        (_, false, true) => {
            let said = format!("not tried here: end what never ends, which did not begin within {seconds} s");
            Finding::note(SUBJECT, said)
        }
        _ => Finding::failed(SUBJECT, format!("one that never ends outlives its {seconds} s: {REMEDY}")),
    }
}

/// Whether within that time so many processes run that have a word among their arguments.
async fn become_so(word: &str, count: usize) -> bool {
    let run = || {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let arguments = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        arguments.filter(|all| all.split(|byte| *byte == 0).any(|one| one == word.as_bytes())).count()
    };
    let becomes = async {
        while run() != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SHORT.time, becomes).await.is_ok()
}

const COULD: &str = "could";

/// The process that tries: `kestrel-node-agent try HOW [WHAT ON]...`, of which it prints a line each.
pub fn inside(words: &[String]) -> ExitCode {
    let Some((how, attempts)) = words.split_first() else { return ExitCode::SUCCESS };
    let sealed = if how == "sealed" { seal() } else { Ok(false) };
    let said = sealed.and_then(|has_landlock| {
        let mut out = io::stdout().lock();
        writeln!(out, "{has_landlock}")?;
        for attempt in attempts.chunks_exact(2) {
            match attempt_to(&attempt[0], &attempt[1]) {
                Ok(()) => writeln!(out, "{COULD}")?,
                Err(why) => writeln!(out, "{why}")?,
            }
        }
        Ok(())
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _nobody_reads = write!(io::stderr(), "{problem}");
            ExitCode::FAILURE
        }
    }
}

/// As a process that reads does it; whether it is by Landlock too.
fn seal() -> io::Result<bool> {
    sandbox::limit(LIMITS.time).and_then(|()| sandbox::seal(Reach::Open)).map_err(io::Error::other)
}

/// Makes one attempt, of which nothing stays.
///
/// # Errors
/// It is not possible.
pub fn attempt_to(what: &str, on: &str) -> io::Result<()> {
    match what {
        "read" => fs::read(on).map(drop),
        "list" => fs::read_dir(on).map(drop),
        "write into" => {
            let path = Path::new(on).join(format!(".kestrel-check-{}", process::id()));
            File::create_new(&path).map(|_| drop(fs::remove_file(path)))
        }
        "connect to" => {
            let address = on.parse().map_err(io::Error::other)?;
            TcpStream::connect_timeout(&address, CONNECT).map(drop)
        }
        // It has nothing to try, and ends.
        "start" => Command::new(PROGRAM).arg("try").status().map(drop),
        "make" => thread::Builder::new().spawn(|| ()).map(drop),
        "join group" => setpgid(None, on.parse().ok().and_then(Pid::from_raw)).map_err(Into::into),
        "hang" => {
            Command::new(PROGRAM).args(["try", "free", "wait", on]).spawn()?;
            seal()?;
            never_end()
        }
        "wait" => never_end(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn never_end() -> ! {
    loop {
        thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_possible_outside_proves_something() {
        let (could, could_not) = (Ok(()), Err("not permitted".to_owned()));
        let judged = |sealed, free| judge("read", "/x", sealed, free).to_string();
        assert_eq!(
            judged(&could_not, &could),
            "ok      sandbox: a process in it can't read /x, which one outside can (not permitted)"
        );
        assert_eq!(
            judged(&could_not, &could_not),
            "note    sandbox: not tried here: read /x, which fails outside too (not permitted)"
        );
        for free in [&could, &could_not] {
            let said = judged(&could, free);
            assert!(said.starts_with("FAILED  sandbox: a process in it can read /x: let nothing"), "{said}");
        }
    }
}
