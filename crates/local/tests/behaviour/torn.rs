//! What a user had done when the power was cut, and the index does not know of.

use instep_core::policy::Role;
use instep_core::version::Kind;
use instep_fs::sim::SimConfig;
use instep_replica::conformance::User as _;

use super::acts::{observe, row};
use crate::support::p;
use crate::support::sim::Sim;

const MINE: &[u8] = b"made by a user";

fn rest(sim: &Sim) {
    let fs = sim.fs();
    observe(sim.replica(), &|ms| {
        fs.advance(ms.cast_signed() * 1_000_000);
    });
}

#[test]
fn a_directory_that_a_mirrors_user_put_in_the_place_of_a_file_stays_unknown_after_a_power_cut() {
    let mut kept = 0;
    for seed in 0..64 {
        let mut sim = Sim::new(SimConfig::ext4(seed));
        sim.role = Role::Source;
        sim.open();
        sim.write(&p("f"), MINE).unwrap();
        rest(&sim);
        sim.remove(&p("f")).unwrap();
        sim.mkdir(&p("f")).unwrap();
        sim.fs().settle();
        sim.power_cut(seed);
        kept += u32::from(!row(sim.replica(), &p("f")).entry.is_empty());
        rest(&sim);
        let row = row(sim.replica(), &p("f"));
        assert_eq!(
            row.present().map(|v| v.kind),
            Some(Kind::Dir),
            "seed {seed}"
        );
    }
    assert!(kept > 0, "no index ever knew of the file");
}
