//! Paths of folders as they are written down in JSON: as text where they are text, else by their bytes.
//!
//! Invariant: every path comes back as it was; those that are text look as they always did.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use instep_replica::records::hex;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { hex: String },
}

impl Written {
    fn of(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes {
                hex: hex(path.as_os_str().as_bytes()),
            },
        }
    }

    fn path(self) -> Option<PathBuf> {
        let bytes = match self {
            Self::Text(text) => return Some(PathBuf::from(text)),
            Self::Bytes { hex } => unhex(&hex)?,
        };
        Some(PathBuf::from(OsString::from_vec(bytes)))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

/// One path.
pub(super) mod path {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        path: &Path,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        Written::of(path).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<PathBuf, D::Error> {
        let written = Written::deserialize(from)?;
        written
            .path()
            .ok_or_else(|| D::Error::custom("not the bytes of a path"))
    }
}

/// Names with their paths.
pub(super) mod places {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(
        places: &[(String, PathBuf)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(places.iter().map(|(name, path)| (name, Written::of(path))))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(String, PathBuf)>, D::Error> {
        let all = Vec::<(String, Written)>::deserialize(from)?;
        let place = |(name, written): (String, Written)| Some((name, written.path()?));
        let places: Option<Vec<_>> = all.into_iter().map(place).collect();
        places.ok_or_else(|| D::Error::custom("not the bytes of a path"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Record {
        #[serde(with = "path")]
        at: PathBuf,
        #[serde(with = "places")]
        others: Vec<(String, PathBuf)>,
    }

    #[test]
    fn a_path_that_is_no_text_is_lost() {
        let odd = PathBuf::from(OsString::from_vec(b"/srv/caf\xe9".to_vec()));
        for at in [odd, PathBuf::from("/srv/café")] {
            let others = vec![(String::from("B"), at.clone())];
            let record = Record { at, others };
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
        let before = "{\"at\":\"/a\",\"others\":[[\"B\",\"/b\"]]}";
        let record: Record = serde_json::from_str(before).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), before);
        assert!(serde_json::from_str::<Record>("{\"at\":{\"hex\":\"0\"},\"others\":[]}").is_err());
    }
}
