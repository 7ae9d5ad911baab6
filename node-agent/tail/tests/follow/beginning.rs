//! Where reading begins.

use std::time::{Duration, SystemTime};

use kestrel_tail::{discover::Origin, engine::Policy};

use super::bench::*;

/// A line of `age` seconds ago, which is its text too.
fn ago(age: i64) -> String {
    let time = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(age);
    format!("{time:.9} stdout F {age:05}\n")
}

#[test]
fn what_ran_before_is_read_from_the_look_back_and_what_comes_later_from_its_beginning() {
    let mut bench = Bench::pods();
    let live = ["ns_a_uid/app/0.log", "ns_b_uid/app/0.log"];
    for name in live {
        let packed = format!("{name}.20261121-135000");
        bench.append(&packed, &[3000, 2000, 500].map(ago).concat());
        bench.pack(&packed);
        bench.append(name, &[400, 300].map(ago).concat());
    }
    let begin = |bench: &Bench, in_all| {
        let engine = Bench::engine(bench.root.path(), &bench.layout);
        engine.looking_back(Duration::from_secs(1000), in_all, SystemTime::now())
    };
    let unread = |bench: &mut Bench| {
        bench.engine.scan(bench.now);
        let policy = |origin: &Origin| if origin.pod == "a" { Policy::Errors } else { Policy::All };
        bench.engine.assign(|origin| Some(policy(origin)));
        bench.engine.unread_bytes() / ago(0).len() as u64
    };
    // Of what all is wanted is read from the beginning, unless that is asked for.
    bench.engine = begin(&bench, false);
    assert_eq!(unread(&mut bench), 3 + 5);
    bench.engine = begin(&bench, true);
    assert_eq!(unread(&mut bench), 3 + 3);
    bench.append("ns_c_uid/app/0.log", &[9000, 8000].map(ago).concat());
    assert_eq!(unread(&mut bench), 3 + 3 + 2, "a new file");
    bench.read();
    bench.ack_and_save();

    // Positions go before, and what was written since they were kept is new.
    bench.append(live[0], &ago(9000));
    bench.engine = begin(&bench, true);
    assert_eq!(unread(&mut bench), 1);
    bench.read();
    bench.engine.ack(bench.batch);
    bench.engine.save(SystemTime::now() - Duration::from_secs(5000)).unwrap();
    bench.append("ns_d_uid/app/0.log", &[8000, 4000].map(ago).concat());
    bench.engine = begin(&bench, true);
    assert_eq!(unread(&mut bench), 1);
}
