//! Pods and the patches that they get, written out in `tests/data`.

use std::{fs, path::Path};

use serde_json::Value;

use crate::review;

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_pod_gets_exactly_the_patch_that_is_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let mut pods = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(name) = name.strip_suffix(".pod.json") else { continue };
        let patch = review::admit(&read(&path), "shop").patch;
        let expected = read(&folder.join(format!("{name}.patch.json")));
        assert_eq!(patch, expected, "{name} gets this patch:\n{patch:#}");
        pods += 1;
    }
    assert_eq!(pods, 5);
}
