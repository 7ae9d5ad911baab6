//! What may not be seen, or is not there.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_is_waited_for_by_nobody_and_tried_again() {
    let mut scene = Scene::new([
        // Once may be an API server that has just begun.
        (Ask::All, refuse(403)),
        (Ask::All, refuse(500)),
        (Ask::All, refuse(403)),
        (Ask::All, refuse(403)),
        (Ask::All, Answer::Open(vec![added("a", "1"), end_of_list("1")])),
    ]);
    scene.tells(&["begin", "begin", "begin", "begin", "skip"]).await;
    sleep(RETRY.first).await;
    let [(resource, Some(remedy))] = &scene.watches.missing()[..] else { panic!() };
    assert_eq!(resource, "namespaces");
    let rule = r#"{apiGroups: [""], resources: ["namespaces"], verbs: [get, list, watch]}"#;
    assert!(remedy.contains(rule), "{remedy}");
    scene.tells(&["begin", "a", "finish"]).await;
    assert_eq!(scene.watches.missing(), []);
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_cluster_need_not_have_comes_in_its_best_version_and_goes() {
    let list = |name| Answer::Stream(vec![added(name, "1"), end_of_list("2")]);
    let mut scene = Scene::of(
        &["v1", "v1beta1"],
        [
            (Ask::AllOf("v1"), refuse(404)),
            (Ask::AllOf("v1beta1"), refuse(404)),
            (Ask::AllOf("v1"), refuse(404)),
            (Ask::AllOf("v1beta1"), list("old")),
            (Ask::Since("2"), refuse(404)),
            (Ask::AllOf("v1"), list("new")),
            (Ask::Since("2"), refuse(404)),
            (Ask::AllOf("v1"), refuse(404)),
            (Ask::AllOf("v1beta1"), refuse(404)),
            (Ask::AllOf("v1"), Answer::Open(vec![end_of_list("2")])),
        ],
    );
    scene.tells(&["begin", "begin", "begin", "finish"]).await;
    assert_eq!((scene.watches.count(), scene.watches.missing()), ((1, 1), vec![]), "it misses nothing");
    scene.tells(&["begin", "begin", "old", "finish", "begin", "new", "finish"]).await;
    scene.tells(&["begin", "begin", "begin", "finish", "begin", "finish"]).await;
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_every_cluster_has_is_not_deleted_because_it_can_not_be_found() {
    let mut scene = Scene::new([
        (Ask::All, Answer::Stream(vec![added("a", "1"), end_of_list("2")])),
        (Ask::Since("2"), refuse(404)),
        (Ask::All, refuse(404)),
        (Ask::All, Answer::Open(vec![added("a", "1"), end_of_list("2")])),
    ]);
    scene.tells(&["begin", "a", "finish", "begin", "skip", "begin", "a", "finish"]).await;
    scene.ends().await;
}

#[tokio::test(start_paused = true)]
async fn every_version_is_tried_before_what_was_there_is_gone() {
    let mut scene = Scene::of(
        &["v1", "v1beta1"],
        [
            (Ask::AllOf("v1"), refuse(404)),
            (Ask::AllOf("v1beta1"), Answer::Stream(vec![added("a", "1"), end_of_list("2")])),
            (Ask::Since("2"), refuse(410)),
            (Ask::AllOf("v1beta1"), refuse(404)),
            (Ask::AllOf("v1"), Answer::Open(vec![added("a", "1"), end_of_list("2")])),
        ],
    );
    scene.tells(&["begin", "begin", "a", "finish", "begin", "begin", "a", "finish"]).await;
    scene.ends().await;
}
