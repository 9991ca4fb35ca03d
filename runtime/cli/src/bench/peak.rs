//! Most memory this process had, as Linux counts it; other systems are not asked.

/// Bytes of memory at the highest so far, mapped files included.
#[derive(Debug, Default)]
pub struct Peak {
    highest: Option<u64>,
    /// Memory that does not count was used since, and the system does not forget it.
    spoiled: bool,
}

impl Peak {
    /// Takes in what the system says now.
    pub fn read(&mut self) {
        if !self.spoiled {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            self.highest = self.highest.max(high_water(&status));
        }
    }

    /// Lets what was used and freed since the last [`Peak::read`] not count.
    pub fn forget(&mut self) {
        // Sets the high-water mark to what is used now.
        self.spoiled |= std::fs::write("/proc/self/clear_refs", "5").is_err();
    }

    /// The highest that was read, in bytes.
    pub fn bytes(&self) -> Option<u64> {
        self.highest
    }
}

fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_found() {
        assert_eq!(high_water("Name:\tx\nVmHWM:\t  1234 kB\nVmRSS:\t 1 kB\n"), Some(1234 << 10));
        assert_eq!(high_water("Name:\tx\n"), None);
    }

    #[test]
    fn what_is_forgotten_does_not_count() {
        let mut peak = Peak::default();
        peak.read();
        let Some(before) = peak.bytes() else { return eprintln!("not run: no /proc/self/status") };
        let large = vec![1u8; 256 << 20];
        std::hint::black_box(&large);
        drop(large);
        peak.forget();
        peak.read();
        let after = peak.bytes().unwrap();
        assert!(after >= before && after < before + (200 << 20), "{before} {after}");
        let kept = vec![1u8; 256 << 20];
        std::hint::black_box(&kept);
        peak.read();
        assert!(peak.spoiled || peak.bytes().unwrap() > 256 << 20);
    }
}
