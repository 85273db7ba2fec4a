//! Records of books: JSON that other versions, and others, may have written.

use instep_core::id::ActorId;
use instep_replica::ShareState;
use instep_replica::records::{
    ConflictRecord, DamageRecord, HoldRecord, LogRecord, ShareRecord, TrashRecord, hex,
    path_from_hex,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads a record, writes it, and reads it again.
fn again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(text: &str) -> Option<T> {
    let read: T = serde_json::from_str(text).ok()?;
    let written = serde_json::to_string(&read).expect("it has no keys that are no text");
    assert_eq!(
        serde_json::from_str::<T>(&written).expect("it was written by us"),
        read
    );
    Some(read)
}

fn path(text: &str) -> &'static str {
    match path_from_hex(text) {
        Some(path) => {
            assert_eq!(hex(path.as_bytes()), text.to_lowercase());
            "a path"
        }
        None => "no path",
    }
}

/// A record of any book.
pub(super) fn record(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return "no text".into();
    };
    if let Some(conflict) = again::<ConflictRecord>(text) {
        return format!("conflict at {}", path(&conflict.path_hex));
    }
    if let Some(hold) = again::<HoldRecord>(text) {
        return format!("hold of {}", hold.paths_hex.iter().fold("", |_, p| path(p)));
    }
    if let Some(trash) = again::<TrashRecord>(text) {
        return format!("trash from {}", path(&trash.path_hex));
    }
    if let Some(damage) = again::<DamageRecord>(text) {
        return format!("damage at {}", path(&damage.path_hex));
    }
    match again::<LogRecord>(text) {
        Some(_) => "log".into(),
        None => format!("nothing, {}", path(text)),
    }
}

/// The settings of a share, said by two replicas, each on a line.
pub(super) fn share(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let mut read = || lines.next().and_then(again::<ShareRecord>);
    let (Some(one), other) = (read(), read()) else {
        return "nothing".into();
    };
    let merged = |a: &ShareRecord, b: &ShareRecord| {
        let mut all = a.clone();
        all.merge(b);
        all
    };
    assert_eq!(merged(&one, &one).policies, one.policies);
    let state = ShareState::new(instep_core::id::ShareId([1; 16]), one.clone());
    let _label = one.label_of(ActorId([1; 8]));
    let members = state.members().count();
    let Some(other) = other else {
        return format!(
            "{} policies, {} members",
            one.policies.len().min(3),
            members.min(3)
        );
    };
    let both = merged(&one, &other);
    assert_eq!(
        both.policies,
        merged(&other, &one).policies,
        "replicas agree"
    );
    assert_eq!(merged(&both, &other), both);
    "both".into()
}

/// Records to begin with.
pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"path":"a","path_hex":"61","loser":"0101010101010101:1","winner":"0202020202020202:1","content":"00","kind":"file","size":1,"mode":420,"te":1,"winner_te":2,"policy":"newest","noticed_ns":3}"#,
        r#"{"kind":"deletes","replica":"A","since_ns":1,"count":2,"total":3,"paths_hex":["61","2f"]}"#,
        r#"{"path":"a","path_hex":"612f62","kind":"file","size":1,"at_ns":2,"why":"deleted","by":"B","content":"00","loser":null}"#,
        r#"{"at_ns":1,"what":"move","path":"a","from_path":"b","from":"A","to":["B"],"size":1,"similar":2}"#,
        r#"{"path":"a","path_hex":"61","content":"00","found":"01","since_ns":1}"#,
        "2e2e2f61",
    ];
    texts.iter().map(|t| t.as_bytes().to_vec()).collect()
}

/// Settings to begin with.
pub(super) fn share_seeds() -> Vec<Vec<u8>> {
    let one = r#"{"policies":{"0":"newest","1":{"prefer":"01010101010101010101010101010101"}},"members":{"01010101010101010101010101010101":{"label":"A","location":"/a","actors":["0101010101010101"],"gone":false}}}"#;
    let two = r#"{"policies":{"1":"manual","2":"keep-both"},"members":{}}"#;
    vec![one.into(), format!("{one}\n{two}").into(), two.into()]
}
