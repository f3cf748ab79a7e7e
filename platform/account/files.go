package account

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxLine bounds a line of either file; a group of some ten thousand members fits.
const maxLine = 1 << 20

// Files is a resolver that asks the classic two files at each question. Lines that cannot be understood are passed over,
// as the C library does; of two with the same name or number the first counts.
type Files struct {
	Passwd, Group string
	known         *texts // what was read before; nil: everything is read anew
}

var _ Resolver = Files{}

// Lookup implements Resolver.
func (f Files) Lookup(name string) (Account, error) {
	return f.find("account", strconv.Quote(name), func(fields []string) bool { return fields[0] == name })
}

// Fresh implements Resolver.
func (f Files) Fresh(name string) (Account, error) { return f.Lookup(name) }

// ByUID implements Resolver.
func (f Files) ByUID(uid uint32) (Account, error) {
	return f.find("uid", strconv.FormatUint(uint64(uid), 10), func(fields []string) bool {
		n, ok := number(fields[2])
		return ok && n == uid
	})
}

// GroupByName implements Resolver.
func (f Files) GroupByName(name string) (Group, error) {
	var found *Group
	err := f.lines(f.Group, 4, func(fields []string) bool {
		if gid, ok := number(fields[2]); ok && fields[0] == name {
			found = &Group{GID: gid, Name: name}
		}
		return found == nil
	})
	switch {
	case err != nil:
		return Group{}, fmt.Errorf("account: group %q: %w", name, err)
	case found == nil:
		return Group{}, fmt.Errorf("account: group %q: %w", name, ErrMissing)
	}
	return *found, nil
}

func (f Files) find(what, who string, is func([]string) bool) (Account, error) {
	var found *Account
	err := f.lines(f.Passwd, 7, func(fields []string) bool {
		if !is(fields) {
			return true
		}
		uid, ok := number(fields[2])
		gid, ok2 := number(fields[3])
		if ok && ok2 {
			found = &Account{Name: fields[0], UID: uid, GID: gid, Home: fields[5], Shell: fields[6]}
		}
		return found == nil
	})
	if err == nil && found == nil {
		err = ErrMissing
	}
	if err == nil {
		err = f.groups(found)
	}
	if err != nil {
		return Account{}, fmt.Errorf("account: %s %s: %w", what, who, err)
	}
	return *found, nil
}

// groups fills in what the group file says about a.
func (f Files) groups(a *Account) error {
	a.Groups = []Group{{GID: a.GID}}
	seen := map[uint32]bool{a.GID: true}
	named := false
	err := f.lines(f.Group, 4, func(fields []string) bool {
		gid, ok := number(fields[2])
		if !ok {
			return true
		}
		listed, others := membership(fields[3], a.Name)
		if gid == a.GID {
			if !named {
				a.Groups[0].Name, a.OwnGroup = fields[0], fields[0] == a.Name
			}
			named = true
			a.OwnGroup = a.OwnGroup && !others
		}
		if listed && !seen[gid] {
			seen[gid] = true
			a.Groups = append(a.Groups, Group{GID: gid, Name: fields[0]})
		}
		return true
	})
	return err
}

func membership(members, name string) (listed, others bool) {
	for m := range strings.SplitSeq(members, ",") {
		switch m {
		case "":
		case name:
			listed = true
		default:
			others = true
		}
	}
	return listed, others
}

// number reads an id. The highest one means "no change" to the kernel and is nobody's.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}

// lines calls do with the fields of each line that has at least n of them and a name, until do returns false.
func (f Files) lines(path string, n int, do func(fields []string) bool) error {
	all, err := f.known.read(path)
	for _, fields := range all {
		if len(fields) >= n && !do(fields) {
			return nil
		}
	}
	return err
}

// parse returns the fields of all lines that have a name.
func parse(file io.Reader) (all [][]string, err error) {
	r := bufio.NewReaderSize(file, 64<<10)
	var long []byte
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if long = append(long, line...); len(long) > maxLine {
				return nil, fmt.Errorf("a line is longer than %d octets", maxLine)
			}
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if len(long) > 0 {
			line = append(long, line...)
			long = nil
		}
		line = bytes.TrimSuffix(line, []byte("\n"))
		// "+" and "-" begin the lines of NIS compatibility, which only its own resolver understands.
		if len(line) > 0 && !bytes.ContainsAny(line[:1], "#+-:") {
			all = append(all, strings.Split(string(line), ":"))
		}
		if err != nil {
			return all, nil
		}
	}
}
