package sealed

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/vault/snapshot"
)

// fullUser is a batch user with every field set.
func fullUser(name string) snapshot.Entry {
	e := user(name, 1)
	e.Turn, e.Mark, e.Rotates = 3, []byte{0, 1, 0xff}, created.Add(time.Hour)
	e.BatchUser.Domain, e.BatchUser.Group, e.BatchUser.PAM = "EXAMPLE", "staff", "batch"
	e.BatchUser.Names = snapshot.NamesOf(map[string]string{"opcon": "users/" + name, "automic": "LOGIN.PAY"})
	e.BatchUser.Services = map[string][]string{"stonebranch": {"FIN", "HR"}, "none": {}}
	e.BatchUser.Expires = created.Add(-time.Hour)
	e.BatchUser.Source = "ldap/static-cred/" + name
	return e
}

// TestHeadKeepsEverything: a field that is added to an entry and not to its head would be lost in
// silence. So every field must be set in fullUser, and come back.
func TestHeadKeepsEverything(t *testing.T) {
	full := fullUser("ldap")
	full.Generation = 1
	p := policy("opcon", "document")
	p.Generation = 1
	for _, v := range []any{full, *full.BatchUser, *p.Policy, full.ID} {
		s := reflect.ValueOf(v)
		for i := range s.NumField() {
			if name := s.Type().Field(i).Name; s.Field(i).IsZero() && name != "Policy" {
				t.Errorf("%T.%s is not tried", v, name)
			}
		}
	}
	bare := user("x", 0)
	bare.Generation, bare.Created = 1, time.Time{}
	bare.BatchUser = &snapshot.BatchUser{}
	for _, want := range []snapshot.Entry{full, p, bare} {
		text, err := headText(&want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := new(parser).head(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
		}
		for cut := range text {
			if got, err := new(parser).head(text[:cut]); err == nil && (want.Policy == nil || cut < len(text)-len("document")) {
				t.Errorf("cut at %d of %d: %+v", cut, len(text), got)
			}
		}
		if _, err := new(parser).head(append(text, 0)); err == nil && want.Policy == nil {
			t.Error("something follows and nobody minds")
		}
	}
}

// TestOldHead: the fields of a head of format 1 are JSON.
func TestOldHead(t *testing.T) {
	want := fullUser("ldap")
	want.Generation = 1
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	head := slices.Concat([]byte(headMarkOld), []byte{0, 0, byte(len(text) >> 8), byte(len(text))}, text)
	got, err := new(parser).head(head)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
}

func TestHeadRefuses(t *testing.T) {
	for name, change := range map[string]func(*snapshot.Entry){
		"a text over 64 KiB":        func(e *snapshot.Entry) { e.BatchUser.Username = strings.Repeat("x", math.MaxUint16+1) },
		"a time after 9999":         func(e *snapshot.Entry) { e.Rotates = time.Unix(lastSecond+1, 0) },
		"a time before the year 1":  func(e *snapshot.Entry) { e.BatchUser.Expires = time.Unix(firstSecond-1, 0) },
		"more than 65,535 services": func(e *snapshot.Entry) { e.BatchUser.Services["x"] = make([]string, math.MaxUint16+1) },
		"more than maxMeta in all": func(e *snapshot.Entry) {
			for i := range 5 {
				e.BatchUser.Names = append(e.BatchUser.Names, snapshot.Name{Where: fmt.Sprint(i), Name: strings.Repeat("x", math.MaxUint16)})
			}
		},
	} {
		e := fullUser("x")
		change(&e)
		if r, err := Seal(1, &[32]byte{1}, e, []byte("secret")); err == nil {
			t.Errorf("%s: sealed in %d octets", name, len(r.Head))
		}
	}
}

// FuzzHead: what is taken for a head is one, in the one form that it has.
func FuzzHead(f *testing.F) {
	for _, e := range []snapshot.Entry{fullUser("ldap"), user("x", 1), policy("opcon", "document")} {
		e.Generation = 1
		text, err := headText(&e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := new(parser).head(text)
		if err != nil || !bytes.HasPrefix(text, []byte(headMark)) {
			return
		}
		again, err := headText(&e)
		if err != nil || !bytes.Equal(again, text) {
			t.Errorf("%v: %q is also %q", err, text, again)
		}
		if _, err := json.Marshal(e); err != nil {
			t.Error(err)
		}
	})
}

// FuzzHeader: what is taken for a header is one, in the one form that it has.
func FuzzHeader(f *testing.F) {
	h := &header{host: "0123456789abcdef", boxes: []keyBox{{"keyfile", "id1", make([]byte, storeKeyBox)}, {"tpm2", "id2", make([]byte, storeKeyBox)}}}
	text, err := h.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text[prefixSize : len(text)-checksumSize])
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) > maxBody {
			return
		}
		c := cursor{body, true}
		h := parseBody(&c)
		if !c.done() || len(h.boxes) == 0 {
			return
		}
		text, err := h.encode()
		if err != nil || !bytes.Equal(text[prefixSize:len(text)-checksumSize], body) {
			t.Fatalf("%v: %q is also %q", err, body, text)
		}
		if got, n, err := parseHeader(append(text, 1, 2, 3)); err != nil || n != len(text) || !reflect.DeepEqual(got, h) {
			t.Errorf("%v: %+v, not %+v", err, got, h)
		}
		text[len(text)-1] ^= 1
		if _, _, err := parseHeader(text); err != ErrDamaged {
			t.Errorf("a wrong checksum: %v", err)
		}
	})
}
