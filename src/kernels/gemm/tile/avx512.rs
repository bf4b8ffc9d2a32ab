//! AVX-512.

use super::{Lanes, Tile};

pub(super) const TILE: Tile = Tile { rows: 6, columns: 64, lanes: Lanes::Words };
pub(super) const VNNI_TILE: Tile = Tile { rows: 6, columns: 64, lanes: Lanes::UnsignedBySigned };
