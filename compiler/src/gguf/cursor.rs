//! Reads little-endian numbers and strings from hostile bytes. Every length is checked before anything is taken.

/// What is wrong with the bytes, without the file or key it is about.
pub(super) type Problem = String;

/// Longest key or tensor name, in bytes. GGUF allows 65535 for keys and 64 for tensors; those in use are far shorter,
/// and a limit bounds what a hostile file can make us allocate.
const MAX_NAME: u64 = 1024;

/// A place in a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the byte `at`.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Cursor<'a> {
        Cursor { bytes, at }
    }

    /// Where the next byte is taken.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Takes `len` bytes.
    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], Problem> {
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(format!(
                "needs {len} bytes at byte {}, but the file has {}; it is truncated or damaged, download it again",
                self.at,
                self.bytes.len()
            )),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Problem> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Problem> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Problem> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Problem> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes a string: its length in bytes as u64, then its bytes.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Problem> {
        let len = self.u64()?;
        self.take(len)
    }

    /// Takes a string that names something.
    pub(super) fn name(&mut self) -> Result<String, Problem> {
        let (at, len) = (self.at, self.u64()?);
        if len > MAX_NAME {
            return Err(format!("name of {len} bytes at byte {at}, expected no more than {MAX_NAME}"));
        }
        match std::str::from_utf8(self.take(len)?) {
            Ok(name) => Ok(name.to_owned()),
            Err(_) => Err(format!("name at byte {at} is not UTF-8")),
        }
    }
}
