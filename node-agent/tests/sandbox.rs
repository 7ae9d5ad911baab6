//! What a process in the sandbox can't do, tried by one that is in it: this program again, with a word for what
//! it tries. Each is tried also outside, where it succeeds: else nothing would be proved.

// A test may stop at the first surprise, and this one says itself how it went.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{
    env, fs,
    fs::File,
    io::{self, Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{self, Command, Stdio},
    time::{Duration, Instant},
};

use kestrel_node_agent::{
    check::sandbox::attempt_to,
    sandbox::{self, Limits, Printed, Reach},
};
use rustix::process::getpgrp;

const SELF: &str = "/proc/self/exe";
const LIMITS: Limits = Limits { time: Duration::from_secs(20), bytes: 4096 };

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    match &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["try", how, what, target] => return inside(how, what, target),
        // What an attempt starts.
        ["try"] => return,
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        out_of_reach(folder.path()).await;
        begins_with_nothing(folder.path()).await;
        does_not_outlive_its_time(folder.path()).await;
        is_killed_when_nobody_waits(folder.path()).await;
        what_it_prints_is_bounded().await;
    });
    println!("test result: ok. 5 passed; 0 failed");
}

/// Tries, and says whether it could.
fn inside(how: &str, what: &str, target: &str) {
    let mut open = File::open(SELF).unwrap();
    let reach = match how {
        "free" => None,
        "open" => Some(Reach::Open),
        "network" => Some(Reach::Network),
        other => panic!("{other}"),
    };
    if let Some(reach) = reach {
        sandbox::limit(LIMITS.time).and_then(|()| sandbox::seal(reach)).unwrap();
    }
    let done: io::Result<()> = match what {
        "read-open" => open.read_exact(&mut [0; 16]),
        "append" => File::options().append(true).open(target).and_then(|mut file| file.write_all(b"x")),
        "remove" => fs::remove_file(target),
        "listen" => TcpListener::bind(target).map(drop),
        "unix" => std::os::unix::net::UnixStream::connect(target).map(drop),
        "nothing" => {
            let variables = env::vars_os().count();
            let open = fs::read_dir("/proc/self/fd")
                .unwrap()
                .filter_map(|file| fs::read_link(file.ok()?.path()).ok());
            let open: Vec<_> = open.map(|path| path.display().to_string()).collect();
            writeln!(io::stdout(), "{variables} {} {}", env::current_dir().unwrap().display(), open.join(" "))
        }
        "flood" => loop {
            if io::stdout().write_all(&[b'x'; 1000]).is_err() {
                process::exit(1);
            }
        },
        // A grandchild that holds the output open and would live on.
        "fork" => {
            let mut child = Command::new(SELF)
                .args(["try", "free", "wait", "-"])
                .stdout(Stdio::inherit())
                .spawn()
                .unwrap();
            fs::write(format!("{target}.new"), format!("{} {}", process::id(), child.id())).unwrap();
            fs::rename(format!("{target}.new"), target).unwrap();
            child.wait().map(drop)
        }
        other => attempt_to(other, target),
    };
    match done {
        Ok(()) if what == "nothing" => {}
        Ok(()) => print!("could"),
        Err(error) => print!("could not: {error}"),
    }
}

async fn tried(how: &str, what: &str, target: &str) -> Printed {
    sandbox::run(Path::new(SELF), &["try", how, what, target], b"", LIMITS).await.unwrap()
}

async fn could(how: &str, what: &str, target: &str) -> bool {
    let Printed { text, problem, .. } = tried(how, what, target).await;
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("could") && problem.is_empty(), "{how} {what}: {text:?} {problem}");
    text == "could"
}

async fn out_of_reach(folder: &Path) {
    // Like the token of the agent link, and that of a service account.
    let secrets = folder.join("var/run/secrets/kestrel");
    fs::create_dir_all(&secrets).unwrap();
    let token = secrets.join("token");
    fs::write(&token, "secret").unwrap();
    let file = folder.join("file");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = folder.join("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let parent = format!("/proc/{}/environ", process::id());
    let address = listener.local_addr().unwrap().to_string();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    for (what, target) in [
        ("read", path(&token)),
        ("list", path(&secrets)),
        ("read", "/etc/passwd".to_owned()),
        ("read", parent),
        ("write into", path(folder)),
        ("append", path(&token)),
        ("remove", path(&file)),
        ("connect to", address.clone()),
        ("listen", "127.0.0.1:0".to_owned()),
        ("unix", path(&socket)),
        ("start", String::new()),
        ("make", String::new()),
        ("join group", getpgrp().to_string()),
    ] {
        if what == "remove" {
            fs::write(&file, "").unwrap();
        }
        assert!(!could("open", what, &target).await, "{what} {target}");
        if !matches!(what, "connect to" | "listen") {
            assert!(!could("network", what, &target).await, "{what} {target}");
        }
        assert!(could("free", what, &target).await, "{what} {target}");
    }
    assert!(could("network", "connect to", &address).await);
    assert!(could("open", "read-open", "").await, "what is open stays so");
}

async fn begins_with_nothing(folder: &Path) {
    let file = folder.join("open");
    let _open = File::create(&file).unwrap();
    let Printed { text, .. } = tried("free", "nothing", "").await;
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("0 / ") && !text.contains(file.to_str().unwrap()), "{text}");
}

/// Both processes of a "fork" that has begun.
async fn pair(file: &Path) -> [u32; 2] {
    let begun = Instant::now();
    loop {
        if let Ok(text) = fs::read_to_string(file) {
            let ids: Vec<u32> = text.split(' ').map(|id| id.parse().unwrap()).collect();
            return ids.try_into().unwrap();
        }
        assert!(begun.elapsed() < LIMITS.time, "it does not begin");
        tokio::task::yield_now().await;
    }
}

/// Waits until neither runs any more. One whose parent has not taken note of its end has ended.
fn both_end(ids: [u32; 2]) {
    let begun = Instant::now();
    let runs = |id: &u32| {
        fs::read_to_string(format!("/proc/{id}/stat"))
            .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
    };
    while ids.iter().any(runs) {
        assert!(begun.elapsed() < LIMITS.time, "{ids:?} run on");
        std::thread::yield_now();
    }
}

async fn does_not_outlive_its_time(folder: &Path) {
    let file = folder.join("late");
    let arguments = ["try", "free", "fork", file.to_str().unwrap()];
    // Its time must be enough to begin, wherever this runs.
    let limits = Limits { time: Duration::from_secs(6), ..LIMITS };
    let (late, ids) = tokio::join!(sandbox::run(Path::new(SELF), &arguments, b"", limits), pair(&file));
    assert_eq!(late.unwrap_err(), "no answer in 6.0 s");
    both_end(ids);
}

async fn is_killed_when_nobody_waits(folder: &Path) {
    let file = folder.join("dropped");
    let arguments = ["try", "free", "fork", file.to_str().unwrap()];
    let ids = tokio::select! {
        _ended = sandbox::run(Path::new(SELF), &arguments, b"", LIMITS) => panic!("it ended"),
        ids = pair(&file) => ids,
    };
    both_end(ids);
}

async fn what_it_prints_is_bounded() {
    let Printed { text, is_cut, problem } = tried("open", "flood", "").await;
    assert_eq!((text.len(), is_cut, problem.as_str()), (LIMITS.bytes, true, ""));
    let Printed { problem, .. } =
        sandbox::run(Path::new(SELF), &["try", "no such word", "", ""], b"", LIMITS).await.unwrap();
    assert!(problem.contains("no such word"), "{problem}");
}
