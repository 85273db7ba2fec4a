//! What few people do, for seeds whose purpose is to reach every decision: special files, ignored files and
//! rules that change, links that leave the root.
//!
//! Keeps no ledger: what comes of it is counted and not judged.

use instep_fs::sim::{Save, SimFs};
use instep_testkit::prng::Prng;

const PATHS: [&str; 8] = ["a", "b", "d/a", "d/b", "d/e/a", "f/a", "f/e/b", "h"];
const DIRS: [&str; 5] = ["d", "d/e", "f", "f/e", "h"];
const RULES: &str = ".instepignore";

/// Does one of these things on one machine, and says what.
pub(crate) fn act(disks: &[SimFs], rng: &mut Prng) -> String {
    let machine = rng.below(disks.len());
    let fs = &disks[machine];
    let (path, dir) = (PATHS[rng.below(PATHS.len())], DIRS[rng.below(DIRS.len())]);
    let what = match rng.below(11) {
        0 => {
            let gone = fs.remove_all(path).is_ok();
            format!("fifo at {path} {gone} {}", fs.special(path).is_ok())
        }
        1 => format!(
            "rules {}",
            fs.write_file(RULES, "*.ign\n", Save::InPlace).is_ok()
        ),
        2 => {
            let rules = ["*.ign\n/b\n", "*.ign\n", "*.ign\na\n"][rng.below(3)];
            format!(
                "rules {rules:?} {}",
                fs.write_file(RULES, rules, Save::ByRename).is_ok()
            )
        }
        3 | 4 => {
            let ignored = format!("{dir}/x.ign");
            let made = fs.mkdir_all(dir).is_ok();
            let wrote = fs.write_file(&ignored, "ignored", Save::InPlace).is_ok();
            format!("ignored {ignored} {made} {wrote}")
        }
        5 => {
            let gone = fs.remove_all(path).is_ok();
            let target = ["/etc/passwd", "../../x"][rng.below(2)];
            format!(
                "link {path} {gone} to {target} {}",
                fs.symlink(target, path).is_ok()
            )
        }
        6 => {
            // So few that two people meet.
            let (path, target) = (PATHS[rng.below(2)], ["a", "x", "y"][rng.below(3)]);
            let gone = fs.remove_all(path).is_ok();
            format!(
                "link {path} {gone} to {target} {}",
                fs.symlink(target, path).is_ok()
            )
        }
        7 | 8 => edit_copy(fs, rng),
        9 => format!("remove {path} {}", fs.remove(path).is_ok()),
        _ => remove_tracked(fs, dir),
    };
    format!("{machine}: rare: {what}")
}

/// Deletes or renames a directory as a program does that knows nothing of what is ignored in it.
fn remove_tracked(fs: &SimFs, dir: &str) -> String {
    let to = "moved";
    let gone = fs.remove_all(to).is_ok();
    format!("rename {dir} to {to} {gone} {}", fs.rename(dir, to).is_ok())
}

/// Edits or deletes a conflict copy.
fn edit_copy(fs: &SimFs, rng: &mut Prng) -> String {
    let all = fs.snapshot().into_keys().map(|p| p.to_string());
    let copies: Vec<String> = all.filter(|p| p.contains(".conflict-")).collect();
    let Some(copy) = rng.pick(&copies) else {
        return "no copy".to_owned();
    };
    if rng.chance(1, 4) {
        return format!("remove {copy} {}", fs.remove(copy).is_ok());
    }
    let content = format!("edited {}", rng.below(1000));
    let saved = fs.write_file(copy, content, Save::InPlace);
    format!("edit {copy} {}", saved.is_ok())
}
