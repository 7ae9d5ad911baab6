//! Bytes of files, at any offset, through one buffer.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::Path,
};

use flate2::read::MultiGzDecoder;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2};

use crate::split::LINE_LIMIT;

/// Bytes read at once.
pub const READ: usize = 256 * 1024;

/// Bytes read when those of [`READ`] did not end a record: a line of the limit
/// in pieces, with room for the runtime's words before each piece.
pub const WINDOW: usize = LINE_LIMIT + 128 * 1024;

/// No byte of a gzip file unpacks to more.
const MOST_PACKED: u64 = 1032;

/// Memory pages begin at multiples of this.
const PAGE: usize = 4096;

/// A window of a file.
#[derive(Debug)]
pub struct Window<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The file held no more when it was read.
    pub at_end: bool,
}

/// Reads windows, one after the other, into the same memory. Pages of it that
/// no long line ever needed stay untouched and cost nothing.
#[derive(Debug)]
pub struct Reader {
    memory: Vec<u8>,
    /// Where the first page begins: reads into memory that is not aligned are
    /// several times slower on some processors.
    aligned: usize,
    unpacked: Option<Unpacked>,
}

impl Default for Reader {
    fn default() -> Self {
        let memory = vec![0; WINDOW + 2 * PAGE];
        let aligned = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self { memory, aligned, unpacked: None }
    }
}

impl Reader {
    /// At most `want` bytes of `file` from `offset` on.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn plain(&mut self, file: &File, offset: u64, want: usize) -> io::Result<Window<'_>> {
        let buffer = &mut self.memory[self.aligned..self.aligned + want.min(WINDOW + PAGE)];
        let length = file.read_at(buffer, offset)?;
        Ok(Window { at_end: length < buffer.len(), bytes: &buffer[..length] })
    }

    /// At most `want` unpacked bytes of the gzip file `file` from `offset` on.
    /// Going on in the file that was read last is cheap, all else unpacks from
    /// the beginning.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn packed(&mut self, file: &File, offset: u64, want: usize) -> io::Result<Window<'_>> {
        let inode = file.metadata()?.ino();
        let unpacked = match self.unpacked.take() {
            Some(open) if open.inode == inode && open.base <= offset => open,
            _ => Unpacked::open(file, inode)?,
        };
        self.unpacked.insert(unpacked).window(offset, want)
    }

    /// Frees what unpacking holds.
    pub fn close_packed(&mut self) {
        self.unpacked = None;
    }
}

/// A gzip file that is being read from its beginning to its end.
struct Unpacked {
    inode: u64,
    decoder: MultiGzDecoder<File>,
    /// Unpacked bytes from offset `base` on.
    bytes: Vec<u8>,
    base: u64,
    /// The file is damaged behind these bytes.
    damage: Option<(io::ErrorKind, String)>,
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacked")
            .field("inode", &self.inode)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Unpacked {
    fn open(file: &File, inode: u64) -> io::Result<Self> {
        let mut file = file.try_clone()?;
        file.rewind()?;
        Ok(Self { inode, decoder: MultiGzDecoder::new(file), bytes: Vec::new(), base: 0, damage: None })
    }

    fn window(&mut self, offset: u64, want: usize) -> io::Result<Window<'_>> {
        let mut at_end = false;
        loop {
            let passed =
                usize::try_from(offset - self.base).map_or(self.bytes.len(), |n| n.min(self.bytes.len()));
            self.bytes.drain(..passed);
            self.base += passed as u64;
            if let Some((kind, text)) = self.damage.as_ref().filter(|_| self.bytes.is_empty()) {
                return Err(io::Error::new(*kind, text.clone()));
            }
            if at_end || self.damage.is_some() || (self.base == offset && self.bytes.len() >= want) {
                break;
            }
            let missing = want.max(READ) - self.bytes.len().min(READ);
            match self.decoder.by_ref().take(missing as u64).read_to_end(&mut self.bytes) {
                Ok(read) => at_end = read < missing,
                Err(error) => self.damage = Some((error.kind(), error.to_string())),
            }
        }
        Ok(Window {
            at_end: at_end && self.bytes.len() < want,
            bytes: &self.bytes[..self.bytes.len().min(want)],
        })
    }
}

/// The unpacked size that a gzip file of one member names in its last bytes,
/// as far as its own size makes that possible: a damaged one may name any.
///
/// # Errors
/// The file cannot be read or is too short to be one.
pub fn unpacked_size(file: &File) -> io::Result<u64> {
    let mut trailer = [0; 4];
    let length = file.metadata()?.len();
    file.read_exact_at(&mut trailer, length.saturating_sub(4))?;
    Ok(u64::from(u32::from_le_bytes(trailer)).min(length.saturating_mul(MOST_PACKED)))
}

/// Opens a regular file that really lies below `root`. Links are followed, but
/// what they lead to must lie there too: whoever can write a link there must
/// not get to read our other files through us.
///
/// # Errors
/// The file cannot be opened, is not a regular file, or lies elsewhere.
pub fn open_below(root: &Path, path: &Path) -> io::Result<(File, Stat)> {
    // A named pipe would block without NONBLOCK.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // What no link leads to lies where its path says, and that is nearly everything.
    let unlinked = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    let is_unlinked = unlinked.is_ok();
    let file = File::from(unlinked.or_else(|_| open(path, flags, Mode::empty()))?);
    // It is asked of every file: `statx` takes half as long again.
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    if is_unlinked {
        return Ok((file, stat));
    }
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if !real.starts_with(fs::canonicalize(root)?) {
        let text = format!("it is a link to {}, outside of {}", real.display(), root.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok((file, stat))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn pack(path: &Path, bytes: &[u8]) {
        let mut encoder = GzEncoder::new(File::create(path).unwrap(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap();
    }

    #[test]
    fn the_buffer_begins_at_a_page() {
        let reader = Reader::default();
        assert_eq!(reader.memory[reader.aligned..].as_ptr().align_offset(PAGE), 0);
    }

    #[test]
    fn a_packed_file_reads_as_the_plain_one() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        let (plain, packed) = (directory.path().join("plain"), directory.path().join("packed"));
        fs::write(&plain, &bytes).unwrap();
        pack(&packed, &bytes);
        let (plain, packed) = (File::open(plain).unwrap(), File::open(packed).unwrap());
        assert_eq!(unpacked_size(&packed).unwrap(), bytes.len() as u64);
        let mut reader = Reader::default();
        let end = bytes.len() as u64;
        for (offset, want) in [
            (0, READ),
            (100_000, READ),
            (100_001, WINDOW),
            (2_000_000, READ),
            (5, 10),
            (end - 3, 10),
            (end, 10),
        ] {
            let expected = reader.plain(&plain, offset, want).map(|w| (w.bytes.to_vec(), w.at_end)).unwrap();
            let found = reader.packed(&packed, offset, want).map(|w| (w.bytes.to_vec(), w.at_end)).unwrap();
            assert!(
                expected == found,
                "{offset} {want}: {} {}, {} {}",
                expected.0.len(),
                expected.1,
                found.0.len(),
                found.1
            );
        }
        assert!(reader.packed(&plain, 0, 10).is_err());
    }

    #[test]
    fn a_damaged_file_is_read_up_to_its_damage() {
        let directory = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let path = directory.path().join("packed");
        pack(&path, &bytes);
        let packed = fs::read(&path).unwrap();
        fs::write(&path, &packed[..packed.len() / 2]).unwrap();
        let file = File::open(&path).unwrap();
        let mut reader = Reader::default();
        let mut at = 0;
        let error = loop {
            match reader.packed(&file, at as u64, READ) {
                Ok(window) => {
                    assert!(!window.at_end && !window.bytes.is_empty());
                    assert!(window.bytes == &bytes[at..at + window.bytes.len()], "{at}");
                    at += window.bytes.len();
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(at > bytes.len() / 4, "{at}");
        assert!(unpacked_size(&file).unwrap() <= packed.len() as u64 / 2 * MOST_PACKED);
    }

    #[test]
    fn links_are_followed_only_below_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        fs::write(directory.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(root.join("file"), root.join("good")).unwrap();
        std::os::unix::fs::symlink("../secret", root.join("bad")).unwrap();
        assert!(open_below(&root, &root.join("good")).is_ok());
        let error = open_below(&root, &root.join("bad")).unwrap_err().to_string();
        assert!(error.contains("outside of"), "{error}");
        assert!(open_below(&root, &root).is_err());
    }
}
