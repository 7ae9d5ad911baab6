//! The volumes of a pod, in kubectl's own form.

use serde_json::Value;

use super::{
    super::{go_text, list, text},
    page::Page,
};

/// Attributes are cut behind so many bytes.
const ATTRIBUTE_BYTES: usize = 140;

/// A title, a field, and what stands there without it.
type Said = (&'static str, &'static str, &'static str);

/// Kinds of volumes, in kubectl's words.
const VOLUMES: [(&str, &str, &[Said]); 10] = [
    (
        "hostPath",
        "HostPath (bare host directory volume)",
        &[("Path", "path", ""), ("HostPathType", "type", "")],
    ),
    (
        "emptyDir",
        "EmptyDir (a temporary directory that shares a pod's lifetime)",
        &[("Medium", "medium", ""), ("SizeLimit", "sizeLimit", "<unset>")],
    ),
    (
        "secret",
        "Secret (a volume populated by a Secret)",
        &[("SecretName", "secretName", ""), ("Optional", "optional", "false")],
    ),
    (
        "configMap",
        "ConfigMap (a volume populated by a ConfigMap)",
        &[("Name", "name", ""), ("Optional", "optional", "false")],
    ),
    (
        "persistentVolumeClaim",
        "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
        &[("ClaimName", "claimName", ""), ("ReadOnly", "readOnly", "false")],
    ),
    (
        "nfs",
        "NFS (an NFS mount that lasts the lifetime of a pod)",
        &[("Server", "server", ""), ("Path", "path", ""), ("ReadOnly", "readOnly", "false")],
    ),
    (
        "csi",
        "CSI (a Container Storage Interface (CSI) volume source)",
        &[("Driver", "driver", ""), ("FSType", "fsType", ""), ("ReadOnly", "readOnly", "false")],
    ),
    (
        "image",
        "Image (a container image or OCI artifact)",
        &[("Reference", "reference", ""), ("PullPolicy", "pullPolicy", "")],
    ),
    ("downwardAPI", "DownwardAPI (a volume populated by information about the pod)", &[]),
    ("projected", "Projected (a volume that contains injected data from multiple sources)", &[]),
];

/// What a projected volume is made of.
const SOURCES: [(&str, &[Said]); 3] = [
    ("secret", &[("SecretName", "name", ""), ("Optional", "optional", "false")]),
    ("configMap", &[("ConfigMapName", "name", ""), ("Optional", "optional", "false")]),
    ("serviceAccountToken", &[("TokenExpirationSeconds", "expirationSeconds", "")]),
];

impl Page {
    pub(super) fn volumes(&mut self, indent: &str, spec: &Value) {
        let volumes = list(spec, &["volumes"]);
        let none = if volumes.is_empty() { "\t<none>" } else { "" };
        self.line(0, &format!("{indent}Volumes:{none}"));
        for volume in volumes {
            let lead = if indent.is_empty() { "" } else { " " };
            self.line(1, &format!("{lead}{}:", text(volume, &["name"])));
            self.volume(volume);
        }
    }

    fn volume(&mut self, volume: &Value) {
        if let Some((kind, words, fields)) = VOLUMES.iter().find(|(kind, ..)| volume[*kind].is_object()) {
            let of = &volume[*kind];
            self.field(2, "Type", words);
            self.said(of, fields);
            match *kind {
                "csi" => {
                    let attributes = of["volumeAttributes"].as_object().into_iter().flatten();
                    self.lines("    ", "VolumeAttributes", attributes.map(attribute));
                }
                "downwardAPI" => {
                    self.line(2, "Items:");
                    for item in list(of, &["items"]) {
                        let from = [&["fieldRef", "fieldPath"], &["resourceFieldRef", "resource"]];
                        let from = from.map(|path| text(item, path)).concat();
                        self.line(3, &format!("{from} -> {}", text(item, &["path"])));
                    }
                }
                "projected" => list(of, &["sources"]).iter().for_each(|source| self.source(source)),
                _ => {}
            }
        } else if let Some((kind, of)) =
            volume.as_object().into_iter().flatten().find(|(name, _)| *name != "name")
        {
            self.field(2, "Type", kind);
            if let Some(fields) = of.as_object() {
                self.content(2, fields, "", &[]);
            }
        }
    }

    fn source(&mut self, source: &Value) {
        if source["downwardAPI"].is_object() {
            self.field(2, "DownwardAPI", true);
        }
        for (kind, fields) in SOURCES.iter().filter(|(kind, _)| source[*kind].is_object()) {
            self.said(&source[*kind], fields);
        }
    }

    fn said(&mut self, of: &Value, fields: &[Said]) {
        for (title, field, none) in fields {
            let value = if of[*field].is_null() { (*none).to_owned() } else { go_text(&of[*field]) };
            self.field(2, title, value);
        }
    }
}

/// Of a volume's driver.
fn attribute((name, value): (&String, &Value)) -> String {
    let mut shown = format!("    {name}={}", go_text(value));
    let end = shown.floor_char_boundary(ATTRIBUTE_BYTES + 4);
    if end < shown.len() {
        shown.replace_range(end.., "...");
    }
    shown
}
