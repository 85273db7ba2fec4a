//! Which folders take part, whether they can, and in which share.
//!
//! Pure but for [`Inspection`]s, which are handed in: so that every bad input has a test. Invariant: nothing
//! has been created or changed when a check here fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use instep_core::id::{ReplicaId, ShareId};
use instep_core::policy::Role;

use crate::error::{Exit, Failure};

/// What one look at a folder said. Nothing was created by it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inspection {
    /// Without links and dots; as typed where it does not exist.
    pub(crate) path: PathBuf,
    /// Something is there.
    pub(crate) exists: bool,
    /// It is a directory.
    pub(crate) is_dir: bool,
    /// Device and inode.
    pub(crate) identity: Option<(u64, u64)>,
    /// What listing it said, where that failed.
    pub(crate) unreadable: Option<String>,
    /// Why nothing can be made in it, where this user may not.
    pub(crate) unwritable: Option<String>,
    /// What of `.instep` is not ours.
    pub(crate) foreign: Option<String>,
    /// The shares that it is in.
    pub(crate) memberships: Vec<Membership>,
    /// Who holds it now.
    pub(crate) holder: Option<String>,
    /// It is the place to mount what was synchronized there, and that is not mounted.
    pub(crate) bare: bool,
}

/// That a folder is in a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    /// Which share.
    pub(crate) share: ShareId,
    /// As which replica.
    pub(crate) replica: ReplicaId,
    /// What it may do there.
    pub(crate) role: Role,
    /// Whether the share is a mirror.
    pub(crate) mirror: bool,
    /// Its own label when it was last in a session.
    pub(crate) label: String,
    /// Labels and locations of the members it knows, itself included.
    pub(crate) members: Vec<(String, PathBuf)>,
}

/// One folder of a command.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    /// Its name in every message.
    pub(crate) label: String,
    /// As it was typed.
    pub(crate) typed: PathBuf,
    /// What it may do in this session.
    pub(crate) role: Role,
    /// What is there.
    pub(crate) seen: Inspection,
}

/// Which share a session is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// One that some of the folders are in already.
    Existing(ShareId),
    /// A new one.
    New,
}

/// Refuses folders that cannot be used together, most certain mistakes first.
pub(crate) fn check(roots: &[Root], create: bool) -> Result<(), Failure> {
    for (i, root) in roots.iter().enumerate() {
        check_one(root, create)?;
        for other in &roots[..i] {
            check_pair(other, root)?;
        }
    }
    Ok(())
}

fn check_one(root: &Root, create: bool) -> Result<(), Failure> {
    let typed = root.typed.display();
    if !root.seen.exists {
        if create {
            return Ok(());
        }
        return Err(Failure::new(1004, Exit::Usage, format!("{typed} does not exist"))
            .why("a folder that is missing is not created by itself: the path may be mistyped, or a disk not mounted")
            .remedy("mount it or correct the path")
            .remedy("add --create to make it"));
    }
    if !root.seen.is_dir {
        return Err(
            Failure::new(1003, Exit::Usage, format!("{typed} is not a folder"))
                .why("only folders are kept equal")
                .remedy(format!(
                    "name the folder that contains it: {}",
                    parent(&root.typed).display()
                )),
        );
    }
    check_readable(&root.typed, &root.seen)?;
    if root.seen.bare && !create {
        return Err(not_mounted(&root.typed));
    }
    if let Some(why) = &root.seen.foreign {
        let name = root.typed.join(".instep");
        return Err(Failure::new(
            1009,
            Exit::Usage,
            format!("{} was not made by instep", name.display()),
        )
        .why(format!("it {why}, and it is not touched"))
        .remedy("rename it, or choose another folder"));
    }
    Ok(())
}

/// Refuses a folder that this user may not look into: nothing can be said about it.
pub(crate) fn check_readable(typed: &Path, seen: &Inspection) -> Result<(), Failure> {
    let Some(why) = &seen.unreadable else {
        return Ok(());
    };
    let typed = typed.display();
    Err(
        Failure::new(1005, Exit::Denied, format!("{typed} cannot be read"))
            .why(why.clone())
            .remedy(format!("ls -ld {typed}   shows whose it is")),
    )
}

/// The folder that was synchronized here is on a disk that is not mounted now.
fn not_mounted(typed: &Path) -> Failure {
    let typed = typed.display();
    Failure::new(1004, Exit::Unreachable, format!("{typed} is not mounted"))
        .why("what was synchronized at this path is on another file system than the folder that is there now")
        .remedy("mount it")
        .remedy("add --create to fill the folder that is there instead")
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}

fn check_pair(a: &Root, b: &Root) -> Result<(), Failure> {
    let (typed_a, typed_b) = (a.typed.display(), b.typed.display());
    let same_object = a.seen.identity.is_some() && a.seen.identity == b.seen.identity;
    if same_object || a.seen.path == b.seen.path {
        return Err(Failure::new(
            1001,
            Exit::Usage,
            format!("{typed_a} and {typed_b} are the same folder"),
        )
        .why(format!("both are {}", a.seen.path.display()))
        .remedy("name each folder once"));
    }
    let (outer, inner) = match (
        b.seen.path.starts_with(&a.seen.path),
        a.seen.path.starts_with(&b.seen.path),
    ) {
        (true, _) => (a, b),
        (_, true) => (b, a),
        _ => return Ok(()),
    };
    let (outer, inner) = (outer.seen.path.display(), inner.seen.path.display());
    Err(
        Failure::new(1002, Exit::Usage, format!("{inner} is inside {outer}"))
            .why("a folder would be copied into itself again and again")
            .remedy("choose folders beside each other"),
    )
}

/// Refuses folders that another process holds, or in which this user may not make ours.
pub(crate) fn check_free(roots: &[Root]) -> Result<(), Failure> {
    for root in roots {
        let is_new = root.role != Role::Source && root.seen.memberships.is_empty();
        if let Some(why) = root.seen.unwritable.as_ref().filter(|_| is_new) {
            let typed = root.typed.display();
            let what = format!("{typed} cannot be written");
            return Err(Failure::new(1005, Exit::Denied, what)
                .why(why.clone())
                .remedy(format!("ls -ld {typed}   shows whose it is")));
        }
        if let Some(holder) = &root.seen.holder {
            return Err(in_use(&root.typed, holder));
        }
    }
    Ok(())
}

/// Another process holds a folder.
pub(crate) fn in_use(typed: &Path, holder: &str) -> Failure {
    let typed = typed.display();
    Failure::new(
        1006,
        Exit::InUse,
        format!("{typed} is in use by another instep"),
    )
    .why(format!("it is held by {holder}"))
    .effect("nothing was changed; the other one goes on")
    .remedy(format!("instep status {typed}"))
    .remedy("or stop it first")
}

/// Decides the share of a session: the one that the folders are in together, or a new one.
pub(crate) fn choose(roots: &[Root], mirror: bool, merge: bool) -> Result<Choice, Failure> {
    let of = |root: &Root| -> BTreeSet<ShareId> {
        let fits = |m: &&Membership| m.mirror == mirror && (!mirror || m.role == root.role);
        root.seen
            .memberships
            .iter()
            .filter(fits)
            .map(|m| m.share)
            .collect()
    };
    let members: Vec<(&Root, BTreeSet<ShareId>)> = roots
        .iter()
        .map(|r| (r, of(r)))
        .filter(|(_, shares)| !shares.is_empty())
        .collect();
    let Some((first, shares)) = members.first() else {
        return Ok(Choice::New);
    };
    let mut common = shares.clone();
    for (root, theirs) in &members[1..] {
        let both: BTreeSet<ShareId> = common.intersection(theirs).copied().collect();
        if both.is_empty() {
            if !merge {
                return Err(different(first, root, mirror));
            }
            break;
        }
        common = both;
    }
    Ok(common
        .first()
        .map_or(Choice::New, |share| Choice::Existing(*share)))
}

/// The label that each folder has in the share of the session, and all labels that its members have.
pub(crate) fn known_labels(roots: &[Root]) -> (Vec<Option<String>>, Vec<String>) {
    let mirror = roots.iter().any(|r| r.role == Role::Source);
    let share = match choose(roots, mirror, true) {
        Ok(Choice::Existing(share)) => Some(share),
        _ => None,
    };
    let part = |root: &Root| {
        let mut of_kind = root.seen.memberships.iter().filter(|m| m.mirror == mirror);
        // Where shares are joined, some are in another one.
        let here = of_kind.clone().find(|m| Some(m.share) == share);
        here.or_else(|| share.and_then(|_| of_kind.next())).cloned()
    };
    let parts: Vec<Option<Membership>> = roots.iter().map(part).collect();
    let members = || parts.iter().flatten().flat_map(|m| &m.members);
    // One that was forgotten, or lost its marker, is still known to the others by its path.
    let remembered = |root: &Root| {
        let mut there = members().filter(|(_, at)| *at == root.seen.path);
        there.next().map(|(label, _)| label.clone())
    };
    let kept = roots.iter().zip(&parts);
    let kept = kept
        .map(|(root, part)| {
            part.as_ref()
                .map_or_else(|| remembered(root), |m| Some(m.label.clone()))
        })
        .collect();
    let taken = members().map(|(label, _)| label.clone()).collect();
    (kept, taken)
}

fn different(a: &Root, b: &Root, mirror: bool) -> Failure {
    let with = |r: &Root| {
        let others: Vec<String> = r
            .seen
            .memberships
            .iter()
            .filter(|m| m.mirror == mirror)
            .flat_map(|m| &m.members)
            .filter(|(_, at)| *at != r.seen.path)
            .map(|(_, at)| at.display().to_string())
            .collect();
        let with = if others.is_empty() {
            String::from("others")
        } else {
            others.join(", ")
        };
        format!("{} is kept equal with {with}", r.typed.display())
    };
    let what = format!(
        "{} and {} belong to different shares",
        a.typed.display(),
        b.typed.display()
    );
    Failure::new(1007, Exit::Usage, what)
        .why(format!("{}\n{}", with(a), with(b)))
        .remedy("add --merge-shares to join them: nothing is deleted, differing files are kept and listed")
}

/// Refuses a mirror whose source was a target of the same pair, or the other way round.
pub(crate) fn check_roles(roots: &[Root]) -> Result<(), Failure> {
    for root in roots {
        let swapped = |m: &&Membership| {
            let others = roots.iter().filter(|r| r.seen.path != root.seen.path);
            m.mirror
                && m.role != root.role
                && others
                    .flat_map(|r| &r.seen.memberships)
                    .any(|o| o.mirror && o.share == m.share)
        };
        if root.role == Role::Source && root.seen.memberships.iter().any(|m| swapped(&m)) {
            let typed = root.typed.display();
            return Err(Failure::new(1027, Exit::Usage, format!("{typed} is a target of this mirror"))
                .why("it was named as the source, and it has been filled from the folder named as a target")
                .remedy("name the source first, then the targets"));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::snapshot;

    pub(crate) fn root(label: &str, path: &str) -> Root {
        let ino = path
            .bytes()
            .fold(7, |h: u64, b| h.wrapping_mul(31) + u64::from(b));
        Root {
            label: label.into(),
            typed: path.into(),
            role: Role::Both,
            seen: Inspection {
                path: path.into(),
                exists: true,
                is_dir: true,
                identity: Some((1, ino)),
                ..Inspection::default()
            },
        }
    }

    fn member(mut root: Root, share: u8, mirror: bool, role: Role) -> Root {
        let members = vec![
            (root.label.clone(), root.typed.clone()),
            (String::from("Z"), PathBuf::from(format!("/z{share}"))),
        ];
        root.seen.memberships.push(Membership {
            share: ShareId([share; 16]),
            replica: ReplicaId([share; 16]),
            role,
            mirror,
            label: root.label.clone(),
            members,
        });
        root
    }

    fn said(result: Result<(), Failure>) -> String {
        result
            .err()
            .map_or_else(|| String::from("accepted"), |f| f.render())
    }

    #[test]
    fn bad_folders_are_refused_as_recorded() {
        let ok = root("A", "/a");
        let with = |change: &dyn Fn(&mut Inspection)| {
            let mut bad = root("B", "/b/file");
            change(&mut bad.seen);
            said(check(&[ok.clone(), bad], false))
        };
        snapshot::check(
            "error-E1001",
            &said(check(&[ok.clone(), root("B", "/a")], false)),
        );
        snapshot::check(
            "error-E1002",
            &said(check(&[root("A", "/a/b/c"), ok.clone()], false)),
        );
        snapshot::check("error-E1003", &with(&|s| s.is_dir = false));
        snapshot::check("error-E1004", &with(&|s| s.exists = false));
        let denied = "list /b/file: permission denied (EACCES 13)";
        snapshot::check(
            "error-E1005",
            &with(&|s| s.unreadable = Some(denied.into())),
        );
        snapshot::check(
            "error-E1009",
            &with(&|s| s.foreign = Some("contains \"x\"".into())),
        );
        let mut held = ok;
        held.seen.holder = Some("pid 123, instep sync /a /b".into());
        snapshot::check("error-E1006", &said(check_free(&[held])));
    }

    #[test]
    fn neighbours_with_a_common_beginning_are_not_inside_each_other() {
        assert_eq!(check(&[root("A", "/a"), root("B", "/ab")], false), Ok(()));
    }

    #[test]
    fn one_directory_under_two_paths_is_one_directory() {
        let mut bound = root("B", "/mnt/bind");
        bound.seen.identity = root("A", "/a").seen.identity;
        assert!(said(check(&[root("A", "/a"), bound], false)).contains("E1001"));
    }

    #[test]
    fn a_missing_folder_is_made_only_when_asked() {
        let mut missing = root("B", "/b");
        missing.seen.exists = false;
        missing.seen.is_dir = false;
        missing.seen.identity = None;
        assert_eq!(check(&[root("A", "/a"), missing], true), Ok(()));
    }

    #[test]
    fn membership_decides_the_share() {
        let sync =
            |label: &str, path: &str, share| member(root(label, path), share, false, Role::Both);
        let existing = |share| Ok(Choice::Existing(ShareId([share; 16])));
        assert_eq!(
            choose(&[root("A", "/a"), root("B", "/b")], false, false),
            Ok(Choice::New)
        );
        assert_eq!(
            choose(&[sync("A", "/a", 1), root("C", "/c")], false, false),
            existing(1)
        );
        assert_eq!(
            choose(&[root("C", "/c"), sync("B", "/b", 1)], false, false),
            existing(1)
        );
        let both = member(sync("A", "/a", 1), 2, false, Role::Both);
        assert_eq!(
            choose(&[both, sync("B", "/b", 2)], false, false),
            existing(2)
        );
        let apart = [sync("A", "/a", 1), sync("B", "/b", 2)];
        snapshot::check(
            "error-E1007",
            &said(choose(&apart, false, false).map(|_| ())),
        );
        assert_eq!(choose(&apart, false, true), existing(1));
    }

    #[test]
    fn a_mirror_is_a_membership_of_its_own() {
        let as_role = |mut r: Root, role| {
            r.role = role;
            r
        };
        let source = as_role(member(root("A", "/a"), 1, false, Role::Both), Role::Source);
        let target = as_role(root("D", "/d"), Role::Target);
        assert_eq!(
            choose(&[source.clone(), target.clone()], true, false),
            Ok(Choice::New)
        );
        let source = member(source, 5, true, Role::Source);
        assert_eq!(
            choose(&[source, target], true, false),
            Ok(Choice::Existing(ShareId([5; 16])))
        );
        let was_target = as_role(member(root("D", "/d"), 5, true, Role::Target), Role::Source);
        let was_source = as_role(member(root("A", "/a"), 5, true, Role::Source), Role::Target);
        snapshot::check("error-E1027", &said(check_roles(&[was_target, was_source])));
    }
}
