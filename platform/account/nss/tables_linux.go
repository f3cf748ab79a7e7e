package nss

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"batchwarden/platform/account"
)

// maxTable bounds a file that is kept in memory: some hundred thousand accounts.
const maxTable = 16 << 20

// accounts is /etc/passwd. odd is the first line that the C library might read differently from us, or 0.
type accounts struct {
	byName map[string]*account.Account // without groups
	byUID  map[uint32]*account.Account
	odd    int
}

// groups is /etc/group.
type groups struct {
	byName map[string]uint32
	names  map[uint32]string          // the first one with the number
	of     map[string][]account.Group // by member
	shared map[uint32]bool            // those that list another than whom they are named after
	odd    int
}

func readTable(path string, there bool) ([]byte, error) {
	if !there {
		return nil, fmt.Errorf("%s: %w", path, os.ErrNotExist)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxTable {
		return nil, fmt.Errorf("%s: it is longer than %d octets", path, maxTable)
	}
	return os.ReadFile(path)
}

func readAccounts(path string, there bool) (*accounts, error) {
	text, err := readTable(path, there)
	if err != nil {
		return nil, err
	}
	t := &accounts{byName: map[string]*account.Account{}, byUID: map[uint32]*account.Account{}}
	t.odd = records(text, 7, func(f []string) bool {
		uid, ok := number(f[2])
		gid, ok2 := number(f[3])
		if !ok || !ok2 {
			return false
		}
		a := &account.Account{Name: f[0], UID: uid, GID: gid, Home: f[5], Shell: f[6]}
		if t.byName[a.Name] == nil {
			t.byName[a.Name] = a
		}
		if t.byUID[uid] == nil {
			t.byUID[uid] = a
		}
		return true
	})
	return t, nil
}

func readGroups(path string, there bool) (*groups, error) {
	text, err := readTable(path, there)
	if err != nil {
		return nil, err
	}
	t := &groups{byName: map[string]uint32{}, names: map[uint32]string{}, of: map[string][]account.Group{}, shared: map[uint32]bool{}}
	t.odd = records(text, 4, func(f []string) bool {
		gid, ok := number(f[2])
		if !ok || strings.ContainsAny(f[3], blanks) {
			return false
		}
		if _, known := t.byName[f[0]]; !known {
			t.byName[f[0]] = gid
		}
		if _, known := t.names[gid]; !known {
			t.names[gid] = f[0]
		}
		for m := range strings.SplitSeq(f[3], ",") {
			if m == "" {
				continue
			}
			t.of[m] = append(t.of[m], account.Group{GID: gid, Name: t.names[gid]})
			if m != t.names[gid] {
				t.shared[gid] = true
			}
		}
		return true
	})
	return t, nil
}

const blanks = " \t\n\v\f\r" // C's isspace

// records calls take with the fields of each line that has exactly n, and returns the number of the first line that it
// or take does not accept; 0: of none. Comments and empty lines are none.
func records(text []byte, n int, take func([]string) bool) (odd int) {
	at := 0
	for line := range bytes.Lines(text) {
		at++
		line = bytes.TrimSuffix(line, []byte("\n"))
		inner := bytes.TrimLeft(line, blanks)
		// The C library passes over comments, but glibc does not when it looks for the groups of an account.
		if len(inner) == 0 || inner[0] == '#' && (n != 4 || bytes.Count(line, []byte(":")) < 2) {
			continue
		}
		// "+" and "-" begin the lines of NIS compatibility.
		plain := !strings.ContainsRune(blanks+"+-:#", rune(line[0])) && bytes.Count(line, []byte(":")) == n-1 && bytes.IndexByte(line, 0) < 0
		if (!plain || !take(strings.Split(string(line), ":"))) && odd == 0 {
			odd = at
		}
	}
	return odd
}

// number reads an id as everybody writes one. The highest one means "no change" to the kernel and is nobody's.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}
