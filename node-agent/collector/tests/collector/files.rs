//! Files that are moved, packed, emptied and linked to while the collector reads them.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
};

use flate2::{Compression, write::GzEncoder};
use kestrel_proto::node::v1::{LogGapReason, LogPolicy};

use super::{Aggregator, CREDIT, Pod, aggregator::Stream, messages};

async fn attached(aggregator: &mut Aggregator) -> Stream {
    let stream = aggregator.accept(CREDIT).await;
    stream.pod("ns", "web", "1-1", LogPolicy::All).await;
    stream
}

impl Pod {
    fn rename(&self, from: &str, to: &str) {
        let data = self.directory.path().join("data");
        fs::rename(data.join(from), data.join(to)).unwrap();
    }

    fn pack(&self, name: &str) {
        let path = self.directory.path().join("data").join(name);
        let packed = File::create(path.with_file_name(format!("{name}.gz"))).unwrap();
        let mut encoder = GzEncoder::new(packed, Compression::fast());
        encoder.write_all(&fs::read(&path).unwrap()).unwrap();
        encoder.finish().unwrap();
        fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn lines_arrive_once_over_rotation_by_rename_and_gzip_and_a_restart() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    let process = pod.start();
    let mut stream = attached(&mut aggregator).await;
    pod.write("banner\none\n");
    assert_eq!(stream.lines(2).await, ["banner", "one"]);
    pod.write("two\n");
    pod.rename("app.log", "app.log.1");
    pod.pack("app.log.1");
    pod.write("banner\nthree\n");
    let mut found = stream.lines(3).await;
    found.sort();
    assert_eq!(found, ["banner", "three", "two"]);
    // What has no answer yet when it ends is read again.
    pod.has_kept("banner\nthree\n".len() as u64).await;
    process.ask_to_end();
    assert_eq!(stream.farewell().await, []);
    drop(stream);
    assert_eq!(process.ends().await, Some(0));

    // While it does not run, what it had begun is rotated away and packed.
    pod.write("four\n");
    pod.rename("app.log", "app.log.1");
    pod.pack("app.log.1");
    pod.write("five\n");
    let _process = pod.start();
    let mut stream = attached(&mut aggregator).await;
    let mut found = stream.lines(2).await;
    found.sort();
    assert_eq!(found, ["five", "four"]);
}

#[tokio::test]
async fn a_file_that_is_emptied_is_begun_again_and_what_was_not_read_is_a_gap() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    let _process = pod.start();
    let mut stream = attached(&mut aggregator).await;
    pod.write("one\n");
    assert_eq!(stream.lines(1).await, ["one"]);
    let log = pod.directory.path().join("data/app.log");
    File::create(&log).unwrap();
    pod.write("two\n");
    assert_eq!(stream.lines(1).await, ["two"]);

    // Under way, and gone before there is an answer.
    let lost = "ERROR lost\n";
    pod.write(lost);
    assert_eq!(messages(&stream.batch().await.1), ["ERROR lost"]);
    File::create(&log).unwrap();
    pod.write("three\n");
    assert_eq!(messages(&stream.batch().await.1), ["three"]);
    stream.nack().await;
    let gap = loop {
        if let Some(gap) = stream.batch().await.1.gaps.pop() {
            break gap;
        }
    };
    assert_eq!((gap.reason(), gap.bytes), (LogGapReason::Emptied, lost.len() as u64));
}

#[tokio::test]
async fn links_are_followed_below_the_volume_alone() {
    let mut aggregator = Aggregator::start().await;
    let pod = Pod::new(&aggregator.endpoint, &aggregator.authority_pem);
    let data = pod.directory.path().join("data");
    fs::create_dir(data.join("real")).unwrap();
    fs::write(data.join("real/output"), "through a link\n").unwrap();
    symlink("real/output", data.join("current.log")).unwrap();
    symlink("../token", data.join("stolen.log")).unwrap();
    symlink("..", data.join("up")).unwrap();
    let mut process = pod.start();
    let mut stream = attached(&mut aggregator).await;
    assert_eq!(stream.lines(1).await, ["through a link"]);
    process.says("stolen.log").await;
    process.ask_to_end();
    assert_eq!(stream.farewell().await, []);
}
