//! The directory of a zip archive whose entries are stored, not compressed: where the bytes of each entry are.
//!
//! A library for zip archives decompresses entries into memory. Checkpoints are larger than that and need only ranges of
//! the mapped file, so the directory is read here: the record at the archive's end, and the list to which it leads.
//! Sources: PKWARE's APPNOTE.TXT, sections 4.3 (records) and 4.5.3 (ZIP64).

use std::collections::BTreeMap;
use std::ops::Range;

/// Signatures, the first four bytes of each record.
const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
/// Bytes of a record without what follows it.
const LOCAL_LEN: usize = 30;
const CENTRAL_LEN: usize = 46;
const END_LEN: usize = 22;
const END64_LEN: usize = 56;
const LOCATOR64_LEN: usize = 20;
/// The longest comment after the last record.
const MAX_COMMENT: usize = 0xffff;

/// Every entry's range in the archive, by its name.
///
/// # Errors
/// The bytes are no whole archive, or an entry is compressed, encrypted or listed twice.
pub(super) fn entries(archive: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let damaged = || "is not a whole zip archive; it may be truncated, download it again".to_owned();
    let (count, start) = directory(archive).ok_or_else(damaged)?;
    let (mut entries, mut at) = (BTreeMap::new(), start);
    for _ in 0..count {
        let entry = Entry::read(archive, at).ok_or_else(damaged)?;
        at = entry.next;
        if entry.method != 0 || entry.flags & 1 != 0 {
            let how = if entry.method != 0 { "compressed" } else { "encrypted" };
            return Err(format!("holds {:?} {how}, and only stored entries are read", entry.name));
        }
        let range = entry.range(archive).ok_or_else(damaged)?;
        if entries.insert(entry.name.clone(), range).is_some() {
            return Err(format!("lists {:?} twice; it is unclear which counts", entry.name));
        }
    }
    Ok(entries)
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: &[u8; N] = bytes.get(at..)?.first_chunk()?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn u16(bytes: &[u8], at: usize) -> Option<usize> {
    number::<2>(bytes, at).map(|number| number as usize)
}

fn u32(bytes: &[u8], at: usize) -> Option<u32> {
    number::<4>(bytes, at).map(|number| number as u32)
}

/// How many entries there are, and where their list starts.
fn directory(archive: &[u8]) -> Option<(u64, usize)> {
    let last = archive.len().checked_sub(END_LEN)?;
    // A comment may stand after the record, and its length is in the record.
    let is_end = |&at: &usize| u32(archive, at) == Some(END) && u16(archive, at + 20) == Some(last - at);
    let end = (last.saturating_sub(MAX_COMMENT)..=last).rev().find(is_end)?;
    let (count, start) = (number::<2>(archive, end + 10)?, number::<4>(archive, end + 16)?);
    let locator = end.checked_sub(LOCATOR64_LEN).filter(|&at| u32(archive, at) == Some(LOCATOR64));
    let Some(locator) = locator else { return Some((count, usize::try_from(start).ok()?)) };
    let end64 = usize::try_from(number::<8>(archive, locator + 8)?).ok()?;
    archive.get(end64..end64.checked_add(END64_LEN)?)?;
    if u32(archive, end64)? != END64 {
        return None;
    }
    let start = usize::try_from(number::<8>(archive, end64 + 48)?).ok()?;
    Some((number::<8>(archive, end64 + 32)?, start))
}

/// An entry as the list has it.
struct Entry {
    name: String,
    flags: u64,
    method: u64,
    len: usize,
    /// Where its own record is.
    local: usize,
    /// Where the next entry of the list is.
    next: usize,
}

impl Entry {
    fn read(archive: &[u8], at: usize) -> Option<Entry> {
        let record = archive.get(at..at.checked_add(CENTRAL_LEN)?)?;
        if u32(record, 0)? != CENTRAL {
            return None;
        }
        let [name_len, extra_len, comment_len] = [u16(record, 28)?, u16(record, 30)?, u16(record, 32)?];
        let name_at = at + CENTRAL_LEN;
        let extra_at = name_at + name_len;
        let next = extra_at + extra_len + comment_len;
        let name = std::str::from_utf8(archive.get(name_at..extra_at)?).ok()?.to_owned();
        let extra = archive.get(extra_at..extra_at + extra_len)?;
        // Sizes and places beyond 32 bits stand in a field of their own, in this order and only those.
        let mut wide = zip64(extra);
        let mut size = |at: usize| match u32(record, at)? {
            u32::MAX => {
                let (number, rest) = wide.split_first_chunk()?;
                wide = rest;
                usize::try_from(u64::from_le_bytes(*number)).ok()
            }
            number => Some(number as usize),
        };
        let (len, stored, local) = (size(24)?, size(20)?, size(42)?);
        let (flags, method) = (number::<2>(record, 8)?, number::<2>(record, 10)?);
        if method == 0 && stored != len {
            return None;
        }
        Some(Entry { name, flags, method, len, local, next })
    }

    /// Its bytes. They start after its own record, whose name and fields may be of other lengths than in the list.
    fn range(&self, archive: &[u8]) -> Option<Range<usize>> {
        let record = archive.get(self.local..self.local.checked_add(LOCAL_LEN)?)?;
        if u32(record, 0)? != LOCAL {
            return None;
        }
        let start = self.local + LOCAL_LEN + u16(record, 26)? + u16(record, 28)?;
        let range = start..start.checked_add(self.len)?;
        archive.get(range.clone()).map(|_| range)
    }
}

/// The field for sizes beyond 32 bits; empty where there is none.
fn zip64(mut extra: &[u8]) -> &[u8] {
    while let (Some(id), Some(len)) = (u16(extra, 0), u16(extra, 2)) {
        let Some(field) = extra.get(4..4 + len) else { break };
        if id == 1 {
            return field;
        }
        extra = &extra[4 + len..];
    }
    &[]
}
