package audit

import (
	"fmt"
	"math"
	"os"

	"batchwarden/platform/disk"
)

// What is kept for the time when the disk is full: a file that takes up room
// which others cannot have. When a record cannot be written it is given up.
const (
	mostReserve = 16 << 20
	ofDisk      = 16 // and at most this part of the disk
	lowAt       = 4  // reserves that are free beside it: below that health says so
	fewFiles    = 16 // that can still be made
)

// room is what is known of the disk.
type room struct {
	disk  disk.Room
	known bool
	held  int64 // octets of the reserve
	used  bool  // it was given up, and is not there again
}

// look asks the disk. Where the platform does not tell there is no reserve
// and no warning.
func (r *room) look(dir string) {
	var err error
	r.disk, err = disk.Of(dir)
	r.known = err == nil
}

// take takes over what another look has found.
func (r *room) take(now room) { r.disk, r.known = now.disk, now.known }

func (r *room) reserve() int64 { return min(mostReserve, r.disk.Total/ofDisk) &^ 4095 }

// roomy reports that the reserve can be taken again without others going short.
func (r *room) roomy() bool { return r.known && r.held == 0 && r.disk.Free >= (1+lowAt)*r.reserve() }

// hold takes the reserve. Without one the log works all the same, and low says
// so.
func (r *room) hold(name string) {
	n := r.reserve()
	if !r.known || n == 0 {
		return
	}
	if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() && info.Size() == n {
		r.held, r.used = n, false // of an earlier start
		return
	}
	if r.disk.Free < 2*n {
		return
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return
	}
	err = disk.Allocate(f, n)
	if closed := f.Close(); err != nil || closed != nil {
		_ = os.Remove(name) // half a reserve would only be in the way
		return
	}
	r.held, r.used = n, false
}

// release gives the reserve up, and reports whether there was one.
func (r *room) release(name string) bool {
	if r.held == 0 {
		return false
	}
	r.held, r.used = 0, true
	return os.Remove(name) == nil
}

// low says why there may soon be no room; "" while there is.
func (r *room) low() string {
	need := lowAt * r.reserve()
	switch {
	case !r.known:
		return ""
	case r.used:
		return fmt.Sprintf("the disk of the audit log is full: the %d octets kept in reserve are being used, and without room nothing is launched", r.reserve())
	case r.disk.Files >= 0 && r.disk.Files < fewFiles:
		return fmt.Sprintf("the file system of the audit log has room for %d more files", r.disk.Files)
	case r.disk.Free < need:
		return fmt.Sprintf("%d octets are free on the disk of the audit log, fewer than %d; without room nothing is launched", r.disk.Free, need)
	case r.held == 0 && r.reserve() > 0:
		return "no room could be kept in reserve for the audit log"
	}
	return ""
}

// isFull reports whether nothing can be written to the disk because it is
// full, which passes, and not for another reason.
func isFull(dir string) bool {
	r, err := disk.Of(dir)
	return err == nil && min(r.Free/4096, filesOf(r)) == 0
}

func filesOf(r disk.Room) int64 {
	if r.Files < 0 {
		return math.MaxInt64
	}
	return r.Files
}
