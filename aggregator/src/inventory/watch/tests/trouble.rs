//! Trouble, and who is told of it.

use super::*;

#[tokio::test(start_paused = true)]
async fn nothing_is_said_to_be_complete_because_of_passing_trouble() {
    let mut scene = Scene::of(
        &["v1", "v1beta1"],
        [
            (Ask::AllOf("v1"), refuse(404)),
            (Ask::AllOf("v1beta1"), Answer::RetryAfter(50)),
            (Ask::AllOf("v1beta1"), Answer::RetryAfter(5)),
            (Ask::AllOf("v1beta1"), Answer::Open(vec![added("a", "1"), end_of_list("2")])),
        ],
    );
    scene.tells(&["begin", "begin", "begin", "begin", "a", "finish"]).await;
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_add_on_that_fails_alone_for_long_is_waited_for_by_nobody_any_more() {
    let watches = Watches::default();
    let others = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
    watches.is_troubled(&others, "all are");
    let pause = |ask| (ask, Answer::RetryAfter(30));
    let lists = (0..3).map(|_| pause(Ask::AllOf("v1")));
    let script = lists.chain((0..9).map(|_| pause(Ask::Page(""))));
    let mut scene = Scene::with(watches.clone(), &["v1"], script);
    scene.tells(&["begin"; 6]).await;
    watches.works(&others, true);
    let begun = Instant::now();
    while timeout(SILENCE, scene.told.recv()).await.unwrap().unwrap() != "skip" {}
    assert!(begun.elapsed() >= RETRY.absent - Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_always_breaks_is_said_and_begins_anew() {
    let cut = || Answer::Cut(String::new());
    for broken in [cut, || Answer::Stream(vec![]), || Answer::Stream(vec![event("ERROR", status(500))])] {
        let mut scene = Scene::new([
            (Ask::All, Answer::Stream(vec![added("a", "1"), end_of_list("2")])),
            (Ask::Since("2"), broken()),
            (Ask::Since("2"), broken()),
            (Ask::Since("2"), broken()),
            (Ask::All, Answer::Open(vec![added("b", "3"), end_of_list("4")])),
        ]);
        scene.tells(&["begin", "a", "finish", "begin"]).await;
        assert!(scene.watches.is_troubled_now());
        scene.tells(&["b", "finish"]).await;
        sleep(WORKED * 2).await;
        assert!(!scene.watches.is_troubled_now());
        scene.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_refused_after_every_list_is_said_and_takes_its_time() {
    for code in [400, 410, 422] {
        let rounds = (0..8).flat_map(|_| {
            [
                (Ask::All, refuse(422)),
                (Ask::Page(""), Answer::List(vec![], "", "5")),
                (Ask::Since("5"), refuse(code)),
            ]
        });
        let (mut scene, begun) = (Scene::new(rounds), Instant::now());
        for _round in 0..8 {
            scene.tells(&["begin", "begin", "finish"]).await;
        }
        assert!(scene.watches.is_troubled_now());
        assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_is_said() {
    let refusals = (0..2).flat_map(|_| [(Ask::All, refuse(400)), (Ask::Page(""), refuse(400))]);
    let mut scene = Scene::new(refusals);
    scene.tells(&["begin"; 5]).await;
    assert!(scene.watches.is_troubled_now());
}

#[tokio::test(start_paused = true)]
async fn one_failure_among_refusals_that_are_expected_is_no_trouble() {
    let mut scene = Scene::of(
        &["v1"],
        [(Ask::AllOf("v1"), refuse(404)), (Ask::AllOf("v1"), refuse(404)), (Ask::AllOf("v1"), refuse(500))],
    );
    scene.tells(&["begin", "begin", "finish", "begin", "begin", "finish", "begin", "begin"]).await;
    assert!(!scene.watches.is_troubled_now());
}

#[tokio::test(start_paused = true)]
async fn trouble_is_over_too_when_the_last_that_had_it_turns_out_to_be_absent() {
    let pause = || (Ask::AllOf("v1"), Answer::RetryAfter(30));
    let mut scene = Scene::of(&["v1"], [pause(), pause(), (Ask::AllOf("v1"), refuse(404))]);
    scene.tells(&["begin", "begin"]).await;
    sleep(RETRY.first).await;
    assert!(scene.watches.is_troubled_now());
    scene.tells(&["begin", "begin", "finish"]).await;
    sleep(RETRY.first).await;
    assert!(!scene.watches.is_troubled_now());
    assert_eq!(scene.watches.missing(), []);
}
