package sealed

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
)

// disk is the files of a vault on a disk that may stop at any moment. It keeps apart what a process sees
// and what would be there after a power failure: of what no fsync covers, anything may be lost, torn or
// done before what was asked for earlier.
type disk struct {
	rnd     *rand.Rand
	names   map[string]*inode // as a process sees them
	durable map[string]*inode
	pending []change // of names, since the last fsync of the directory
	locked  bool

	calls int
	syncs int
	// before is called before every call that changes something, and within.
	before func()
	// fails says whether this call fails; a call that fails may have done a part of its work.
	fails func() error
	lie   lie
}

// lie is what a broken disk, or a broken writer above it, does.
type lie int

const (
	honest         lie = iota
	noSync             // an fsync of a file does nothing
	noDirSync          // an fsync of the directory does nothing
	commitFirst        // the end of what is written is on the disk before its begin
	inPlace            // a rename copies the content
	forgivingSync      // an fsync that failed is tried again, and then succeeds
	syncAfterwards     // a file is synced only once it has its name
)

// inode is one file.
type inode struct {
	now     []byte
	durable []byte
	pending []bit
}

// bit is a part of a write that a disk does at once, or a truncation.
type bit struct {
	at       int
	data     []byte
	truncate bool
}

func (p bit) apply(to []byte) []byte {
	end := p.at + len(p.data)
	if p.truncate {
		if len(to) > p.at {
			return to[:p.at]
		}
		end = p.at
	}
	if len(to) < end {
		to = append(to, make([]byte, end-len(to))...)
	}
	copy(to[p.at:], p.data)
	return to
}

// change is one of names: node is there now, or nothing.
type change struct {
	name string
	node *inode
	from string // the name that it had, when it was renamed
}

func (c change) apply(names map[string]*inode) {
	if c.from != "" && names[c.from] == c.node {
		delete(names, c.from)
	}
	if c.node == nil {
		delete(names, c.name)
		return
	}
	names[c.name] = c.node
}

func newDisk(rnd *rand.Rand) *disk {
	return &disk{rnd: rnd, names: map[string]*inode{}, durable: map[string]*inode{}}
}

// some chooses what of n pending things is done, and in which order.
func some(rnd *rand.Rand, n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	switch rnd.IntN(6) {
	case 0:
		return nil
	case 1:
		return all
	case 2:
		return all[:rnd.IntN(n+1)]
	case 3: // all but one
		if n > 0 {
			i := rnd.IntN(n)
			return slices.Delete(all, i, i+1)
		}
		return all
	case 4:
		rnd.Shuffle(n, func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	return slices.DeleteFunc(all, func(int) bool { return rnd.IntN(2) == 0 })
}

// settle is what of pending pieces may be on the disk over content.
func settle(rnd *rand.Rand, content []byte, pending []bit) []byte {
	out := bytes.Clone(content)
	for _, i := range some(rnd, len(pending)) {
		p := pending[i]
		if n := len(p.data); n > 0 && rnd.IntN(4) == 0 { // torn
			cut := rnd.IntN(n)
			if rnd.IntN(4) == 0 {
				p.at, p.data = p.at+cut, p.data[cut:]
			} else {
				p.data = p.data[:cut]
			}
		}
		out = p.apply(out)
	}
	return out
}

// crash returns what may be there after a power failure now.
func (d *disk) crash(rnd *rand.Rand) *disk {
	names := maps.Clone(d.durable)
	for _, i := range some(rnd, len(d.pending)) {
		d.pending[i].apply(names)
	}
	c := newDisk(rnd)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		node := names[name]
		content := settle(rnd, node.durable, node.pending)
		c.names[name] = &inode{now: content, durable: bytes.Clone(content)}
	}
	c.durable = maps.Clone(c.names)
	return c
}

// killed returns what another process finds when this one has ended and the machine goes on: all that
// was written, whether or not it is on the disk.
func (d *disk) killed(rnd *rand.Rand) *disk {
	c := newDisk(rnd)
	copies := map[*inode]*inode{}
	clone := func(n *inode) *inode {
		if n != nil && copies[n] == nil {
			copies[n] = &inode{bytes.Clone(n.now), bytes.Clone(n.durable), slices.Clone(n.pending)}
		}
		return copies[n]
	}
	for name, n := range d.names {
		c.names[name] = clone(n)
	}
	for name, n := range d.durable {
		c.durable[name] = clone(n)
	}
	for _, p := range d.pending {
		c.pending = append(c.pending, change{p.name, clone(p.node), p.from})
	}
	return c
}

// call counts a call that changes something, and says how it fails.
func (d *disk) call() error {
	d.calls++
	d.moment()
	if d.fails != nil {
		return d.fails()
	}
	return nil
}

// moment is one at which the power may fail.
func (d *disk) moment() {
	if d.before != nil {
		d.before()
	}
}

func (d *disk) rename(c change) {
	c.apply(d.names)
	d.pending = append(d.pending, c)
}

func (d *disk) ReadAll(name string, limit int64) ([]byte, error) {
	n := d.names[name]
	if n == nil {
		return nil, fs.ErrNotExist
	}
	if int64(len(n.now)) > limit {
		return nil, errors.New("too long")
	}
	return bytes.Clone(n.now), nil
}

func (d *disk) Open(name string) (file, error) {
	if err := d.call(); err != nil {
		return nil, err
	}
	n := d.names[name]
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return &diskFile{d: d, n: n}, nil
}

func (d *disk) Create(name string) (file, error) {
	if err := d.call(); err != nil {
		return nil, err
	}
	n := &inode{}
	d.rename(change{name: name, node: n})
	return &diskFile{d: d, n: n}, nil
}

func (d *disk) Rename(from, to string) error {
	err := d.call()
	n := d.names[from]
	if err != nil && d.rnd.IntN(2) == 0 {
		return err
	}
	if n == nil {
		return fs.ErrNotExist
	}
	if old := d.names[to]; d.lie == inPlace && old != nil {
		f := &diskFile{d: d, n: old}
		f.add(bit{truncate: true})
		f.cut(n.now, 0)
		d.moment()
		old.durable, old.pending = bytes.Clone(old.now), nil
		d.rename(change{name: from})
		return err
	}
	d.rename(change{name: to, node: n, from: from})
	return err
}

func (d *disk) Remove(name string) error {
	if err := d.call(); err != nil {
		return err
	}
	if d.names[name] != nil {
		d.rename(change{name: name})
	}
	return nil
}

func (d *disk) Names() ([]string, error) { return slices.Sorted(maps.Keys(d.names)), nil }

func (d *disk) SyncDir() error {
	d.syncs++
	err := d.call()
	if d.lie == noDirSync || err != nil && d.rnd.IntN(2) == 0 {
		return err
	}
	d.durable, d.pending = maps.Clone(d.names), nil
	if d.lie == syncAfterwards {
		for _, n := range d.names {
			n.durable, n.pending = bytes.Clone(n.now), nil
		}
	}
	return err
}

func (d *disk) Lock() (io.Closer, error) {
	if d.locked {
		return nil, ErrLocked
	}
	d.locked = true
	return unlock{d}, nil
}

type unlock struct{ d *disk }

func (u unlock) Close() error {
	if !u.d.locked {
		return errors.New("not locked")
	}
	u.d.locked = false
	return nil
}

// diskFile is an open file.
type diskFile struct {
	d      *disk
	n      *inode
	closed bool
}

func (f *diskFile) add(p bit) {
	f.n.now = p.apply(f.n.now)
	f.n.pending = append(f.n.pending, p)
}

// cut writes p in sectors.
func (f *diskFile) cut(p []byte, at int) {
	for len(p) > 0 {
		n := min(len(p), sector-at%sector)
		f.add(bit{at: at, data: bytes.Clone(p[:n])})
		p, at = p[n:], at+n
	}
}

func (f *diskFile) WriteAt(p []byte, at int64) (int, error) {
	err := f.d.call()
	if f.closed {
		return 0, fs.ErrClosed
	}
	done := p
	if err != nil {
		done = p[:f.d.rnd.IntN(len(p)+1)]
	}
	if half := len(done) / 2; f.d.lie == commitFirst {
		f.cut(done[half:], int(at)+half)
		f.sync()
		f.d.moment()
		f.cut(done[:half], int(at))
	} else {
		f.cut(done, int(at))
	}
	f.d.moment()
	return len(done), err
}

func (f *diskFile) Truncate(size int64) error {
	if err := f.d.call(); err != nil {
		return err
	}
	f.add(bit{at: int(size), truncate: true})
	return nil
}

func (f *diskFile) sync() { f.n.durable, f.n.pending = bytes.Clone(f.n.now), nil }

func (f *diskFile) Sync() error {
	f.d.syncs++
	err := f.d.call()
	switch {
	case f.closed:
		return fs.ErrClosed
	case err != nil:
		// Something of it is on the disk; the rest the kernel has forgotten, and the next fsync
		// knows nothing of it.
		f.n.durable, f.n.pending = settle(f.d.rnd, f.n.durable, f.n.pending), nil
		if f.d.lie == forgivingSync {
			return nil
		}
		return err
	case f.d.lie == noSync || f.d.lie == syncAfterwards:
		return nil
	}
	f.sync()
	return nil
}

func (f *diskFile) Close() error {
	if f.closed {
		return fs.ErrClosed
	}
	f.closed = true
	return nil
}
