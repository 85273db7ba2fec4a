//! The rule packs that come with instep: what nobody wants synchronized.
//!
//! A pack is ordinary ignore text and the weakest layer of all, so that any rule of a user can take a line
//! of it back with `!`. Packs never depend on the machine: all replicas must agree about them.

/// A built-in list of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pack {
    /// What operating systems and desktops leave behind in folders.
    OsLitter,
    /// What editors, office programs and browsers write while they work, and remove themselves.
    EditorTemporaries,
}

impl Pack {
    /// Every pack.
    pub const ALL: &[Self] = &[Self::OsLitter, Self::EditorTemporaries];
    /// The packs of a share whose configuration names none.
    pub const DEFAULT: &[Self] = Self::ALL;

    /// The name by which configuration files and reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OsLitter => "os-litter",
            Self::EditorTemporaries => "editor-temporaries",
        }
    }

    /// The source that verdicts name.
    pub const fn source_name(self) -> &'static str {
        match self {
            Self::OsLitter => "packs/os-litter",
            Self::EditorTemporaries => "packs/editor-temporaries",
        }
    }

    /// The pack with this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.name() == name)
    }

    /// The rules.
    pub const fn text(self) -> &'static str {
        match self {
            Self::OsLitter => OS_LITTER,
            Self::EditorTemporaries => EDITOR_TEMPORARIES,
        }
    }
}

const OS_LITTER: &str = "\
# macOS
.DS_Store
._*
.AppleDouble
.AppleDB/
.AppleDesktop/
.LSOverride
.Spotlight-V100/
.Trashes/
.fseventsd/
.TemporaryItems/
.DocumentRevisions-V100/
.com.apple.timemachine.donotpresent
.VolumeIcon.icns
# Windows
[Tt]humbs.db
[Tt]humbs.db:encryptable
ehthumbs.db
ehthumbs_vista.db
[Dd]esktop.ini
$RECYCLE.BIN/
System Volume Information/
# Linux
.directory
.Trash-*/
.nfs0*
.fuse_hidden*
lost+found/
";

const EDITOR_TEMPORARIES: &str = "\
# vim
*.swp
*.swo
*.swx
4913
# emacs
\\#*#
.#*
# backups of many editors
*~
# office programs
.~lock.*#
~$*
# GNOME and KDE
.gedit-save-*
.goutputstream-*
.kate-swp
.*.kate-swp
# JetBrains
*___jb_tmp___
*___jb_old___
*___jb_bak___
# browsers
*.part
*.crdownload
";

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]
mod tests {
    use super::super::{Rules, Verdict};
    use super::*;
    use crate::path::RelPath;

    #[test]
    fn every_line_of_every_pack_is_a_rule_that_can_match() {
        let mut builder = Rules::builder();
        for pack in Pack::ALL {
            builder = builder.pack(*pack);
        }
        assert_eq!(builder.build().1, []);
    }

    #[test]
    fn packs_take_litter_and_leave_documents() {
        let rules = Rules::defaults();
        let ignored = |path: &str, dir| {
            matches!(
                rules.verdict(&RelPath::new(path.as_bytes()).unwrap(), dir),
                Verdict::Ignored(_)
            )
        };
        for path in [
            ".DS_Store",
            "a/b/._photo.jpg",
            "Thumbs.db",
            "desktop.ini",
            ".main.rs.swp",
            "4913",
            "#draft#",
            ".#draft",
            "notes.txt~",
            ".~lock.budget.ods#",
            "~$budget.xlsx",
            ".goutputstream-X1Y2Z3",
            "film.mkv.part",
            "main.rs___jb_tmp___",
        ] {
            assert!(ignored(path, false), "{path}");
        }
        for path in ["$RECYCLE.BIN", ".Trash-1000", "lost+found"] {
            assert!(ignored(path, true), "{path}");
            assert!(!ignored(path, false), "{path} as a file");
        }
        for path in [
            "#notes",
            "draft#",
            "thumbs.database",
            "swp",
            "a.partial",
            "49130",
            ".gitignore",
            "~",
        ] {
            assert_eq!(ignored(path, false), path == "~", "{path}");
        }
    }

    #[test]
    fn packs_are_found_by_name() {
        for pack in Pack::ALL {
            assert_eq!(Pack::by_name(pack.name()), Some(*pack));
            assert_eq!(pack.source_name(), format!("packs/{}", pack.name()));
        }
        assert_eq!(Pack::by_name("nothing"), None);
    }
}
