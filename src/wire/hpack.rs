//! Blocks of HTTP/2 fields, read for one thing: is a field in them a pseudo-field? RFC 7541.
//!
//! The HTTP/2 library decodes the same bytes and tells nobody of pseudo-fields in trailers (see [`super::trailers`]).
//! A field may be a mere reference to one that was sent before, so what both sides remember, the dynamic table, is
//! followed here too: of each entry its sizes and whether it is a pseudo-field. No text is decoded; Huffman codes are
//! counted where an entry's size depends on it. What is no block at all ends the connection in the library.

use std::collections::VecDeque;

/// What the table may take unless another size is announced, which we do not (RFC 9113 section 6.5.2).
const TABLE_MAX: u32 = 4096;
/// What an entry counts for beside its name and value (section 4.1).
const ENTRY_COSTS: u32 = 32;
/// Entries 1 to 14 of the static table are pseudo-fields, those up to 61 are not (appendix A).
const STATIC_PSEUDO: u32 = 14;
const STATIC: usize = 61;
/// Sizes of the static table's names, in its order.
const STATIC_NAMES: [u8; STATIC] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];
/// Larger integers are no length of anything; the library refuses them as well.
const INTEGER_MAX: u64 = 1 << 24;

/// Not a block of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    name_size: u32,
    value_size: u32,
    is_pseudo: bool,
}

impl Entry {
    fn size(self) -> u32 {
        self.name_size.saturating_add(self.value_size).saturating_add(ENTRY_COSTS)
    }
}

/// What an integer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Integer {
    /// A whole field, by its index.
    Indexed,
    /// A field that is spelled out, its name perhaps by index.
    Literal,
    TableSize,
    NameLength,
    ValueLength,
}

/// Where in a block the next byte stands.
#[derive(Debug, Clone, Copy)]
enum At {
    Field,
    /// In an integer that goes on: its value so far, and the place of the next seven bits.
    Integer(Integer, u64, u32),
    /// Before the length of a name or a value.
    NameLength,
    ValueLength,
    /// So many bytes before the end of a name or a value.
    Name(u32),
    Value(u32),
}

/// One direction of a connection, from its first block on.
#[derive(Debug, Clone)]
pub struct Fields {
    /// The newest entry first.
    table: VecDeque<Entry>,
    size: u32,
    limit: u32,
    at: At,
    /// The field that is being spelled out.
    field: Entry,
    is_remembered: bool,
    is_huffman: bool,
    huffman: Huffman,
}

impl Default for Fields {
    fn default() -> Fields {
        Fields {
            table: VecDeque::new(),
            size: 0,
            limit: TABLE_MAX,
            at: At::Field,
            field: Entry { name_size: 0, value_size: 0, is_pseudo: false },
            is_remembered: false,
            is_huffman: false,
            huffman: Huffman::default(),
        }
    }
}

impl Fields {
    /// Reads on. `true`: a pseudo-field is among these bytes.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<bool, Malformed> {
        let mut found = false;
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.at {
                At::Name(left) => {
                    let (text, rest) = bytes.split_at(bytes.len().min(left as usize));
                    if self.field.name_size == 0 && self.huffman.is_new() {
                        self.field.is_pseudo = begins_with_a_colon(byte, self.is_huffman);
                        found |= self.field.is_pseudo;
                    }
                    self.field.name_size += self.length(text);
                    bytes = rest;
                    self.name(left - text.len() as u32);
                }
                At::Value(left) => {
                    let (text, rest) = bytes.split_at(bytes.len().min(left as usize));
                    if self.is_remembered {
                        self.field.value_size += self.length(text);
                    }
                    bytes = rest;
                    self.value(left - text.len() as u32);
                }
                At::Field | At::Integer(..) | At::NameLength | At::ValueLength => {
                    bytes = rest;
                    found |= self.step(byte)?;
                }
            }
        }
        Ok(found)
    }

    /// A block can end here.
    #[cfg(test)]
    fn is_between_fields(&self) -> bool {
        matches!(self.at, At::Field)
    }

    fn step(&mut self, byte: u8) -> Result<bool, Malformed> {
        let (integer, prefix) = match self.at {
            At::Integer(integer, value, place) => {
                let value = value + (u64::from(byte & 0x7f) << place);
                if value > INTEGER_MAX || place > 21 {
                    return Err(Malformed);
                }
                if byte & 0x80 != 0 {
                    self.at = At::Integer(integer, value, place + 7);
                    return Ok(false);
                }
                return self.integer(integer, value as u32);
            }
            At::NameLength => {
                self.is_huffman = byte & 0x80 != 0;
                (Integer::NameLength, 7)
            }
            At::ValueLength => {
                self.is_huffman = byte & 0x80 != 0;
                (Integer::ValueLength, 7)
            }
            At::Field | At::Name(_) | At::Value(_) => match byte {
                0x80.. => (Integer::Indexed, 7),
                0x40.. => {
                    self.is_remembered = true;
                    (Integer::Literal, 6)
                }
                0x20.. => (Integer::TableSize, 5),
                // Not to be remembered, now or ever.
                0x00.. => {
                    self.is_remembered = false;
                    (Integer::Literal, 4)
                }
            },
        };
        let most = 0xff_u8 >> (8 - prefix);
        if byte & most == most {
            self.at = At::Integer(integer, u64::from(most), 0);
            return Ok(false);
        }
        self.integer(integer, u32::from(byte & most))
    }

    fn integer(&mut self, integer: Integer, value: u32) -> Result<bool, Malformed> {
        match integer {
            Integer::Indexed => {
                self.at = At::Field;
                return Ok(self.entry(value)?.is_pseudo);
            }
            Integer::Literal if value == 0 => {
                self.field = Entry { name_size: 0, value_size: 0, is_pseudo: false };
                self.at = At::NameLength;
            }
            Integer::Literal => {
                self.field = Entry { value_size: 0, ..self.entry(value)? };
                self.at = At::ValueLength;
                return Ok(self.field.is_pseudo);
            }
            Integer::TableSize => {
                if value > TABLE_MAX {
                    return Err(Malformed);
                }
                self.limit = value;
                self.forget(value);
                self.at = At::Field;
            }
            Integer::NameLength => {
                self.huffman = Huffman::default();
                self.name(value);
            }
            Integer::ValueLength => {
                self.huffman = Huffman::default();
                self.value(value);
            }
        }
        Ok(false)
    }

    /// So many bytes of a name are still to come.
    fn name(&mut self, left: u32) {
        self.at = if left > 0 { At::Name(left) } else { At::ValueLength };
    }

    fn value(&mut self, left: u32) {
        if left > 0 {
            self.at = At::Value(left);
            return;
        }
        self.at = At::Field;
        if self.is_remembered {
            let size = self.field.size();
            // What is larger than the table empties it and is not remembered (section 4.4).
            self.forget(self.limit.saturating_sub(size));
            if size <= self.limit {
                self.table.push_front(self.field);
                self.size += size;
            }
        }
    }

    fn length(&mut self, text: &[u8]) -> u32 {
        match self.is_huffman {
            true => self.huffman.count(text),
            false => text.len() as u32,
        }
    }

    fn entry(&self, index: u32) -> Result<Entry, Malformed> {
        match (index as usize).checked_sub(1).ok_or(Malformed)? {
            nth @ 0..STATIC => Ok(Entry {
                name_size: u32::from(STATIC_NAMES[nth]),
                // Only names of static entries are ever counted.
                value_size: 0,
                is_pseudo: index <= STATIC_PSEUDO,
            }),
            nth => self.table.get(nth - STATIC).copied().ok_or(Malformed),
        }
    }

    /// The oldest entries go until the table takes no more than this.
    fn forget(&mut self, most: u32) {
        while self.size > most {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}

/// `:` is the code 1011100.
fn begins_with_a_colon(byte: u8, is_huffman: bool) -> bool {
    if is_huffman { byte >> 1 == 0x5c } else { byte == b':' }
}

/// Counts the characters of a Huffman-coded text (appendix B). Codes of one length are consecutive numbers, in the
/// order of their lengths, so how many there are of each says where each begins.
#[derive(Debug, Clone, Copy, Default)]
struct Huffman {
    code: u32,
    bits: usize,
    begun: bool,
}

const CODE_BITS_MAX: usize = 30;
/// How many codes have so many bits.
const CODES: [u32; CODE_BITS_MAX + 1] =
    [0, 0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
const FIRST_CODES: [u32; CODE_BITS_MAX + 1] = first_codes();

const fn first_codes() -> [u32; CODE_BITS_MAX + 1] {
    let mut first = [0; CODE_BITS_MAX + 1];
    let mut bits = 1;
    while bits <= CODE_BITS_MAX {
        first[bits] = (first[bits - 1] + CODES[bits - 1]) << 1;
        bits += 1;
    }
    first
}

impl Huffman {
    fn is_new(self) -> bool {
        !self.begun
    }

    /// How many characters end in these bytes.
    fn count(&mut self, bytes: &[u8]) -> u32 {
        self.begun = true;
        let mut characters = 0;
        for byte in bytes {
            for bit in (0..8).rev() {
                self.code = self.code << 1 | u32::from(byte >> bit & 1);
                self.bits += 1;
                if self.code.wrapping_sub(FIRST_CODES[self.bits]) < CODES[self.bits] {
                    characters += 1;
                    (self.code, self.bits) = (0, 0);
                } else if self.bits == CODE_BITS_MAX {
                    // Cannot be: every number of thirty bits begins with a code.
                    (self.code, self.bits) = (0, 0);
                }
            }
        }
        characters
    }
}

#[cfg(test)]
#[path = "hpack_tests.rs"]
mod tests;
