//! The tables of rotations for the plan's RoPE steps.

use super::execute::RopeKey;
use crate::load::Model;
use trit_kernels::rope::RopeTable;

/// The tables, for as many positions as have been needed so far.
#[derive(Default)]
pub(super) struct Ropes {
    tables: Vec<(RopeKey, RopeTable)>,
    positions: usize,
}

impl Ropes {
    /// Makes the tables long enough for `positions` positions. Their length doubles each time, so that this is rare.
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

    /// The tables, each with the key that determines it.
    pub fn tables(&self) -> &[(RopeKey, RopeTable)] {
        &self.tables
    }
}
