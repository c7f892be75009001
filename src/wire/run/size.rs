//! The size of a terminal.

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

impl Size {
    /// Rows, columns (two bytes each, the most significant one first).
    pub fn bytes(self) -> [u8; 4] {
        let ([r, s], [c, d]) = (self.rows.to_be_bytes(), self.columns.to_be_bytes());
        [r, s, c, d]
    }

    pub fn from_bytes([r, s, c, d]: [u8; 4]) -> Size {
        Size { rows: u16::from_be_bytes([r, s]), columns: u16::from_be_bytes([c, d]) }
    }
}
