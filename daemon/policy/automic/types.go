package automic

import "strings"

// rights is a set of rights (AU1).
type rights uint16

const letters = "RWXDCSPML"

const (
	read rights = 1 << iota
	write
	execute
	remove
	cancel
	statistics
	reports
	modify
	sla
)

const (
	runs      = read | write | execute | remove | cancel | statistics | reports | modify
	allRights = runs | sla
)

// rightsOf reads a column of rights in either case (AU14). A letter that is
// none is returned.
func rightsOf(s string) (rights, rune) {
	var r rights
	for _, c := range s {
		i := strings.IndexRune(letters, c)
		if c >= 'a' && c <= 'z' {
			i = strings.IndexRune(letters, c-'a'+'A')
		}
		if i < 0 {
			return 0, c
		}
		r |= 1 << i
	}
	return r, 0
}

func (r rights) String() string {
	var b strings.Builder
	for i := range letters {
		if r&(1<<i) != 0 {
			b.WriteByte(letters[i])
		}
	}
	return b.String()
}

// kinds is a set of types of objects.
type kinds uint64

// typeNames are the known types; their places are the bits of kinds.
var typeNames = [...]string{
	"CALL", "EVNT", "JOBF", "JOBP", "JOBS", "SCRI", // the first six have L
	"CPIT", "HOSTG", "JOBD", "JOBG", "JOBQ", "JSCH",
	"CITC", "CODE", "CONN", "DOCU", "FILTER", "FOLD", "HSTA", "PRPT", "TZ", "USRG", "VARA", "XLS",
	"BU", "SLA",
	"LOGIN", "JOBI", "CALE",
	"HOST",
	"EXTREP", "REPORT",
	"API", "USER", "CLNT", "SERV", "QUEUE", "SYNC",
}

const allKinds kinds = 1<<len(typeNames) - 1

// A kind is the place of a type in typeNames.
type kind int

const (
	noKind kind = -1
	jobs   kind = 4
	folder kind = 17
	login  kind = 26
)

// kindOf finds a type in any case (AU14).
func kindOf(name string) kind {
	if name == "" {
		return noKind
	}
	first := name[0] &^ 0x20 // the upper-case letter, if it is a letter
	for i, n := range typeNames {
		if n[0] == first && len(n) == len(name) && strings.EqualFold(n, name) {
			return kind(i)
		}
	}
	return noKind
}

func (k kind) String() string { return typeNames[k] }

func (k kind) bit() kinds { return 1 << k }

// rights returns the rights that the type has (AU6).
func (k kind) rights() rights {
	switch {
	case k < 6:
		return allRights
	case k < 12:
		return runs
	case k < 24:
		return read | write | remove
	case k < 26:
		return read | write
	case k < 29:
		return read | write | execute | remove
	case k == 29:
		return runs
	case k < 32:
		return read
	}
	return allRights // the vendor's table is not recoverable
}
