//! The kubelet's layout:
//! `<namespace>_<pod>_<uid>/<container>/<restart>.log[.<time>[.gz]]`.

use std::path::Path;

use super::{Age, Candidate, Order, Origin};

/// Whose files lie in the directory `<namespace>_<pod>_<uid>/<container>`.
pub fn origin(relative: &Path) -> Option<Origin> {
    let mut parts = relative.iter().map(|part| part.to_str());
    let (namespace, pod, uid) = pod(parts.next()??)?;
    let container = parts.next()??;
    parts.next().is_none().then(|| Origin {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.to_owned(),
        container: container.to_owned(),
    })
}

/// Whether `relative` is a pod's or a container's directory, and not one of
/// the pod `except`.
pub fn enters(except: Option<&(String, String)>, relative: &Path) -> bool {
    let mut parts = relative.iter().map(|part| part.to_str());
    let Some((namespace, pod, _)) = parts.next().flatten().and_then(pod) else { return false };
    parts.count() <= 1 && except.is_none_or(|(ns, name)| (ns.as_str(), name.as_str()) != (namespace, pod))
}

/// The file of a container's instance, live or rotated. What the kubelet is
/// still compressing ends in `.tmp` and is none.
pub fn candidate(name: &str) -> Option<Candidate> {
    let (instance, suffix) = name.split_once(".log")?;
    let instance = instance.parse().ok()?;
    let (age, packed) = match suffix.strip_prefix('.') {
        None if suffix.is_empty() => (Age::Live, false),
        None => return None,
        Some(time) => {
            let plain = time.strip_suffix(".gz");
            let time = plain.unwrap_or(time);
            if !time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
                return None;
            }
            (Age::Rotated(time.to_owned()), plain.is_some())
        }
    };
    Some(Candidate {
        series: String::new(),
        order: Order { instance, age },
        packed,
        known_only: false,
        name: name.to_owned(),
    })
}

/// Namespace, name and UID: none of them holds an underscore.
fn pod(directory: &str) -> Option<(&str, &str, &str)> {
    let (namespace, rest) = directory.split_once('_')?;
    let (name, uid) = rest.split_once('_')?;
    (!namespace.is_empty() && !name.is_empty() && !uid.is_empty()).then_some((namespace, name, uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_container() {
        let found = origin(Path::new("shop_web-0_1234/app")).unwrap();
        assert_eq!(
            (&*found.namespace, &*found.pod, &*found.uid, &*found.container),
            ("shop", "web-0", "1234", "app")
        );
        assert!(origin(Path::new("shop_web-0_1234")).is_none());
        assert!(origin(Path::new("other/app")).is_none());
        let except = ("shop".to_owned(), "web-0".to_owned());
        assert!(enters(None, Path::new("shop_web-0_1234")));
        assert!(!enters(Some(&except), Path::new("shop_web-0_1234")));
        assert!(enters(Some(&except), Path::new("shop_web-1_1234/app")));
        assert!(!enters(None, Path::new("shop_web-1_1234/app/deeper")));
    }

    #[test]
    fn files_sort_from_the_oldest_to_the_newest() {
        let names = [
            "0.log.20261121-113759.gz",
            "0.log.20261121-113809",
            "0.log",
            "1.log.20261121-113900",
            "1.log",
            "10.log",
        ];
        let mut sorted: Vec<_> = names.iter().rev().filter_map(|name| candidate(name)).collect();
        sorted.sort_by(|a, b| a.order.cmp(&b.order));
        assert_eq!(sorted.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(sorted.iter().filter(|c| c.packed).count(), 1);
        for other in ["0.log.20261121-113759.gz.tmp", "0.log.20261121-113759.tmp", "x.log", "0.logs", "0.txt"]
        {
            assert_eq!(candidate(other), None, "{other}");
        }
    }
}
