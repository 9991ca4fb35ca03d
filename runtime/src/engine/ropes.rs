//! The rotations of every RoPE step.

use super::execute::RopeKey;
use crate::load::Model;
use trit_kernels::rope::RopeTable;

/// Tables for as many positions as have been needed.
#[derive(Default)]
pub(super) struct Ropes {
    tables: Vec<(RopeKey, RopeTable)>,
    positions: usize,
}

impl Ropes {
    /// Makes room for `positions` positions; tables double, so that this is rare.
    pub fn reserve(&mut self, model: &Model, positions: usize) {
        if positions <= self.positions {
            return;
        }
        let longest = model.manifest().hyperparameters.context_length as usize;
        self.positions = positions.next_power_of_two().max(256).min(longest);
        self.tables.clear();
        for step in &model.manifest().plan.body {
            if let Some(key) = RopeKey::of(step)
                && !self.tables.iter().any(|(k, _)| *k == key)
            {
                let table = RopeTable::new(model.vector(key.inv_freq), key.scaling, self.positions);
                self.tables.push((key, table));
            }
        }
    }

    /// By what determines them.
    pub fn tables(&self) -> &[(RopeKey, RopeTable)] {
        &self.tables
    }
}
