//! Whole bundles: any bytes in the short form of `assembled`, loaded, and run where they load. Bit 0 of the first byte gives
//! sections the digests of their bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trit_format::container::{Header, SectionKind};
use trit_format::manifest::Manifest;
use trit_format::text;
use trit_fuzz::{assembled, running};

fuzz_target!(|data: &[u8]| {
    let Some((&flags, short)) = data.split_first() else { return };
    let mut file = assembled::long(short);
    if flags & 1 != 0 {
        assembled::repair(&mut file);
    }
    if let Ok(header) = Header::parse(&file)
        && let Some(section) = header.section(SectionKind::Manifest)
        && let Ok(manifest) = Manifest::decode(&file[section.range()])
    {
        // What `inspect` prints, whether or not it is valid.
        assert!(!text::plan(&manifest).contains('\x1b'));
    }
    if let Some(model) = running::open(file) {
        let choices = running::Choices { kv: flags >> 1, narrow: flags & 64 != 0 };
        running::run(&model, &[1, 2, 0, 3, 1], choices);
    }
});
