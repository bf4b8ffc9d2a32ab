//! NEON with dot products.

use super::{Lanes, Tile};

pub(super) const TILE: Tile = Tile { rows: 6, columns: 16, lanes: Lanes::SignedBySigned };
