//go:build !windows

package disk

import "os"

// fill takes the room where nothing but writing does.
func fill(f *os.File, n int64) error {
	zeros := make([]byte, 64<<10)
	for at := int64(0); at < n; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), n-at)], at); err != nil {
			return err
		}
	}
	return nil
}
