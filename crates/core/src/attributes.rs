//! Owner, group and extended attributes: metadata beyond permission bits and time, carried only where asked.
//!
//! Owns what a version may say of them and which of several concurrent sayings counts. Invariants: an
//! attribute's name begins with `user.`, all of one object's together stay within a limit, and an id is
//! never the one that means "leave it" to the system. A version that says nothing of a part erases nothing:
//! whoever does not carry a part hands on what was said.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use crate::entry::Entry;
use crate::id::Dot;
use crate::limits;
use crate::row::Row;
use crate::time::Hlc;
use crate::version::{Kind, Version};

/// Which parts a replica carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Owner and group.
    pub owner: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// As which user: what was refused to another is asked for again.
    pub user: u32,
}

impl Carried {
    /// Whether it carries anything.
    pub fn any(self) -> bool {
        self.owner || self.xattrs
    }

    /// The parts that are carried; none when nothing is left.
    pub fn only(self, attributes: Attributes) -> Option<Attributes> {
        let kept = Attributes {
            owner: attributes.owner.filter(|_| self.owner),
            xattrs: attributes.xattrs.filter(|_| self.xattrs),
        };
        (kept != Attributes::default()).then_some(kept)
    }
}

/// A user or a group: its number, and its name where the machine that saw it has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    id: u32,
    name: Box<[u8]>,
}

impl Account {
    /// Refused for the number that means "leave it" to the system, and for a name that no system has.
    pub fn new(id: u32, name: &[u8]) -> Option<Self> {
        let legal = name.len() <= limits::ACCOUNT_NAME_BYTES_MAX
            && !name.iter().any(|b| matches!(b, 0 | b':' | b'/' | b'\n'));
        (id != u32::MAX && legal).then(|| Self {
            id,
            name: name.into(),
        })
    }

    /// Its number where it was seen.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its name where it was seen; empty when it had none.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Whether both mean the same: by name where both have one, else by number.
    pub fn is_alike(&self, other: &Self) -> bool {
        if self.name.is_empty() || other.name.is_empty() {
            self.id == other.id
        } else {
            self.name == other.name
        }
    }
}

/// Who an object belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// The user.
    pub user: Account,
    /// The group.
    pub group: Account,
}

impl Owner {
    /// Whether both mean the same user and the same group.
    pub fn is_alike(&self, other: &Self) -> bool {
        self.user.is_alike(&other.user) && self.group.is_alike(&other.group)
    }
}

/// The extended attributes of one object, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Xattrs(BTreeMap<Box<[u8]>, Box<[u8]>>);

impl Xattrs {
    /// The only names that are carried begin with this. What guards the system (`security.`, `trusted.`)
    /// is neither told nor believed.
    pub const PREFIX: &'static [u8] = b"user.";

    /// Refused where a name is not carried, or all together are more than the limit.
    pub fn new(all: BTreeMap<Box<[u8]>, Box<[u8]>>) -> Option<Self> {
        let bytes: usize = all.iter().map(|(n, v)| n.len() + v.len()).sum();
        let legal = |name: &[u8]| {
            name.starts_with(Self::PREFIX)
                && name.len() > Self::PREFIX.len()
                && name.len() <= limits::NAME_BYTES_MAX
                && !name.contains(&0)
        };
        (bytes <= limits::XATTR_BYTES_MAX && all.keys().all(|n| legal(n))).then_some(Self(all))
    }

    /// Names and values, in order of name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(n, v)| (n.as_ref(), v.as_ref()))
    }

    /// The value of one.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.get(name).map(AsRef::as_ref)
    }
}

/// What is on one disk, part by part; a part that is none was not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Owner and group.
    pub owner: Option<Owner>,
    /// Extended attributes; an empty set says that there are none.
    pub xattrs: Option<Xattrs>,
}

/// What a version says, part by part, each with the instant of its last change; a part that is none is not
/// spoken of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Sayings {
    /// Owner and group.
    pub owner: Option<(Hlc, Owner)>,
    /// Extended attributes; an empty set says that there are none.
    pub xattrs: Option<(Hlc, Xattrs)>,
}

/// What counts of a part, and since when.
pub type Since<'a, T> = Option<(Hlc, &'a T)>;

/// What counts among sayings that may be concurrent, part by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said<'a> {
    /// Owner and group.
    pub owner: Since<'a, Owner>,
    /// Extended attributes.
    pub xattrs: Since<'a, Xattrs>,
}

impl Said<'_> {
    /// As a version says it; none when nothing is said.
    pub fn to_sayings(self) -> Option<Box<Sayings>> {
        (self != Said::default()).then(|| {
            Box::new(Sayings {
                owner: self.owner.map(|(at, owner)| (at, owner.clone())),
                xattrs: self.xattrs.map(|(at, xattrs)| (at, xattrs.clone())),
            })
        })
    }
}

/// What counts for an object of this kind: of each part the newest saying among the siblings of the kind,
/// so that a concurrent edit, or a change of another part, does not undo it.
pub fn said(entry: &Entry, kind: Kind) -> Said<'_> {
    fn newest<'a, T>(
        siblings: impl Iterator<Item = &'a (Dot, Version)>,
        part: impl Fn(&'a Sayings) -> Option<&'a (Hlc, T)>,
    ) -> Since<'a, T> {
        siblings
            .filter_map(|(dot, v)| Some((part(v.attributes.as_deref()?)?, *dot)))
            .max_by_key(|((at, _), dot)| (*at, *dot))
            .map(|((at, part), _)| (*at, part))
    }
    let siblings = entry.siblings();
    if siblings.iter().all(|(_, v)| v.attributes.is_none()) {
        return Said::default();
    }
    let of_kind = || siblings.iter().filter(move |(_, v)| v.kind == kind);
    Said {
        owner: newest(of_kind(), |a| a.owner.as_ref()),
        xattrs: newest(of_kind(), |a| a.xattrs.as_ref()),
    }
}

/// What is on one replica's disk, where that is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The parts that are carried there, as they were found or left.
    pub attributes: Attributes,
    /// Something of what counts was refused to this user id. What cannot be kept here is not asked for
    /// again by the same user until something else counts, and is never taken for a change.
    pub refused_to: Option<u32>,
}

/// Whether a replica's disk shows something else than what counts, in a part that it carries, and may be
/// given it. `kind` is of the version to be shown, `known` what is known of the path from now on.
pub fn is_due(row: &Row, known: &Entry, kind: Kind, carried: Carried) -> bool {
    let Some(seen) = row.seen.as_deref().filter(|_| carried.any()) else {
        return false;
    };
    let want = said(known, kind);
    let is_other = match (want.owner, &seen.attributes.owner) {
        (Some((_, want)), Some(here)) => carried.owner && !want.is_alike(here),
        _ => false,
    } || match (want.xattrs, &seen.attributes.xattrs) {
        (Some((_, want)), Some(here)) => carried.xattrs && want != here,
        _ => false,
    };
    is_other && (seen.refused_to != Some(carried.user) || said(&row.entry, kind) != want)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::*;
    use crate::id::{ActorId, ContentId};

    fn owner(id: u32, name: &[u8]) -> Owner {
        Owner {
            user: Account::new(id, name).unwrap(),
            group: Account::new(id, name).unwrap(),
        }
    }

    fn xattrs(pairs: &[(&[u8], &[u8])]) -> Option<Xattrs> {
        Xattrs::new(
            pairs
                .iter()
                .map(|(n, v)| ((*n).into(), (*v).into()))
                .collect(),
        )
    }

    fn version(owner: Option<(Hlc, Owner)>, xattrs: Option<(Hlc, Xattrs)>) -> Version {
        let attributes = Sayings { owner, xattrs };
        Version {
            content: ContentId([1; 32]),
            size: 1,
            mode: 0o644,
            te: 1,
            mode_te: 1,
            attributes: Some(Box::new(attributes)),
            ..Version::bare(Kind::File)
        }
    }

    fn dot(actor: u8) -> Dot {
        Dot {
            actor: ActorId([actor; 8]),
            counter: 1,
        }
    }

    #[test]
    fn what_guards_the_system_is_not_believed() {
        for name in [
            &b"security.capability"[..],
            b"trusted.x",
            b"system.posix_acl_access",
            b"user.",
            b"user.a\0b",
        ] {
            assert_eq!(xattrs(&[(name, b"")]), None, "{name:?}");
        }
        assert!(xattrs(&[(b"user.a", b"")]).is_some());
        assert_eq!(Account::new(u32::MAX, b""), None, "to the system: leave it");
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let fits = alloc::vec![0; limits::XATTR_BYTES_MAX - 6];
        assert!(xattrs(&[(b"user.a", &fits)]).is_some());
        assert_eq!(xattrs(&[(b"user.a", &fits), (b"user.b", b"")]), None);
    }

    #[test]
    fn each_part_of_concurrent_sayings_counts_by_its_own_instant() {
        let (one, two) = (xattrs(&[(b"user.a", b"1")]), xattrs(&[(b"user.a", b"2")]));
        let a = version(Some((5, owner(1, b"ann"))), one.clone().map(|x| (6, x)));
        let b = version(Some((4, owner(2, b"bob"))), two.clone().map(|x| (7, x)));
        let mut nothing = version(None, None);
        nothing.attributes = None;
        let entry = Entry::first(dot(1), a)
            .merge(&Entry::first(dot(2), b))
            .merge(&Entry::first(dot(3), nothing));
        let said = said(&entry, Kind::File);
        assert_eq!(said.owner, Some((5, &owner(1, b"ann"))));
        assert_eq!(said.xattrs, two.as_ref().map(|x| (7, x)));
        assert_eq!(super::said(&entry, Kind::Dir), Said::default());
    }

    #[test]
    fn an_owner_that_cannot_be_set_is_asked_for_once() {
        let carried = Carried {
            owner: true,
            xattrs: false,
            user: 1000,
        };
        let wanted = Entry::first(dot(1), version(Some((5, owner(1, b"ann"))), None));
        let later = Entry::first(dot(2), version(Some((6, owner(3, b"eve"))), None));
        let seen = |refused_to| Row {
            entry: wanted.clone(),
            seen: Some(Box::new(Seen {
                attributes: Attributes {
                    owner: Some(owner(2, b"bob")),
                    xattrs: None,
                },
                refused_to,
            })),
            ..Row::default()
        };
        assert!(is_due(&seen(None), &wanted, Kind::File, carried));
        assert!(!is_due(&seen(Some(1000)), &wanted, Kind::File, carried));
        assert!(is_due(&seen(Some(0)), &wanted, Kind::File, carried));
        assert!(is_due(&seen(Some(1000)), &later, Kind::File, carried));
        let off = Carried::default();
        assert!(!is_due(&seen(None), &wanted, Kind::File, off));
    }

    #[test]
    fn a_name_counts_for_more_than_a_number() {
        assert!(owner(33, b"www").is_alike(&owner(99, b"www")));
        assert!(!owner(33, b"www").is_alike(&owner(33, b"web")));
        assert!(owner(33, b"").is_alike(&owner(33, b"web")));
    }
}
