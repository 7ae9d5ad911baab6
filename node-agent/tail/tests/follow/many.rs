//! Directories with many files.

use std::fs;

use rustix::process::{Resource, getrlimit, setrlimit};

use super::bench::*;

const FILES: usize = 10_000;

/// Every step below looks each file up: if that took a look at all the others, this would take minutes.
#[test]
fn ten_thousand_files_of_a_directory_are_followed_moved_and_let_go() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut bench = Bench::files("*/*.log");
    for number in 0..FILES {
        bench.append(&format!("a/{number}.log"), &format!("line {number}\n"));
    }
    assert_eq!(bench.read().len(), FILES);
    bench.ack_and_save();
    bench.rename("a", "b");
    assert!(bench.read().is_empty());
    assert_eq!((bench.engine.files(), bench.engine.problems().len()), (FILES, 0));
    bench.append("b/7.log", "line 7 again\n");
    assert_eq!(bench.read(), ["line 7 again"]);
    bench.ack_and_save();
    fs::remove_dir_all(bench.path("b")).unwrap();
    bench.scan();
    bench.later(2 * kestrel_tail::engine::PATIENCE);
    bench.scan();
    assert_eq!(bench.engine.files(), 0);
}
