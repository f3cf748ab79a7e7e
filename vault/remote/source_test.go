package remote

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestPrefixes(t *testing.T) {
	p, err := readPrefixes([]string{"ldap/static-cred/", "/os/hosts/db01", "kv"}, "kv/batch")
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{"ldap/static-cred/payroll", "os/hosts/db01/accounts/x", "kv/x", "kv/batches/x", "ldap/static-cred/a b"} {
		if err := p.check(good, "kv/batch"); err != nil {
			t.Error(err)
		}
	}
	for path, want := range map[string]string{
		"":                               "empty component",
		"ldap/static-cred":               "not below any",
		"ldap/static-cred/":              "empty component",
		"ldap/static-credentials/x":      "not below any",
		"LDAP/static-cred/x":             "not below any",
		"os/hosts/db02/accounts/x":       "not below any",
		"os/hosts/db01/../db02":          "one of dots",
		"os/hosts/db01/./x":              "one of dots",
		"os/hosts/db01/x?version=2":      "contains a character",
		"os/hosts/db01/x#y":              "contains a character",
		"os/hosts/db01/%2e%2e/x":         "contains a character",
		"os/hosts/db01/x\n":              "contains a character",
		"os/hosts/db01/\u202ex":          "contains a character",
		"sys/policies":                   "lies in sys",
		"SYS/policies":                   "lies in sys",
		"auth/token/lookup-self":         "lies in auth",
		"identity/entity":                "lies in identity",
		"cubbyhole/x":                    "lies in cubbyhole",
		"kv/batch/data/x":                "lies in the mount",
		"kv/batch":                       "lies in the mount",
		"kv/" + strings.Repeat("x", 254): "longer than 256",
	} {
		if err := p.check(path, "kv/batch"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "source: ") {
			t.Errorf("%q: got %v, want %q", path, err, want)
		}
	}
	if err := prefixes(nil).check("ldap/x", "batch"); err == nil {
		t.Error("without prefixes a source is taken")
	}
	for _, bad := range []string{"", "/", "sys", "batch", "batch/x", "a//b", ".."} {
		if _, err := readPrefixes([]string{bad}, "batch"); err == nil {
			t.Errorf("%q was taken for a prefix", bad)
		}
	}
}

func TestParseSource(t *testing.T) {
	now := day
	answer := func(data string) []byte {
		return []byte(`{"request_id":"r","lease_duration":3600,"data":` + data + `}`)
	}
	for data, rotates := range map[string]time.Duration{
		`{"password":"p","username":"u"}`:                           0,
		`{"password":"p","username":"u","ttl":3600,"dn":5}`:         time.Hour,
		`{"password":"p","username":"u","ttl":"90"}`:                90 * time.Second,
		`{"password":"p","username":"u","ttl":"1h30m"}`:             90 * time.Minute,
		`{"password":"p","username":"u","ttl":0.5}`:                 time.Second / 2,
		`{"password":"p","username":"u","ttl":-5}`:                  -1,
		`{"password":"p","username":"u","ttl":null}`:                0,
		`{"password":"p","username":"u","last_vault_rotation":"x"}`: 0,
	} {
		s, err := parseSource(answer(data), now)
		if err != nil {
			t.Errorf("%s: %v", data, err)
			continue
		}
		want := time.Time{}
		if rotates != 0 {
			want = now.Add(max(0, rotates))
		}
		if string(s.password) != "p" || s.username != "u" || !s.rotates.Equal(want) {
			t.Errorf("%s: got %+v", data, s)
		}
	}
	for body, want := range map[string]string{
		`{"data":{"username":"u"}}`:                                      "password: is required",
		`{"data":{"password":null}}`:                                     "password: must be a string",
		`{"data":{"password":["canary"]}}`:                               "password: must be a string",
		`{"data":{"password":""}}`:                                       "password: is empty",
		`{"data":{"password":"canary\u0000"}}`:                           "password: contains",
		`{"data":{"password":"` + strings.Repeat("canary", 1000) + `"}}`: "password: longer",
		`{"data":{"password":"canary","username":5}}`:                    "username: must be",
		`{"data":{"password":"canary","ttl":"tomorrow"}}`:                "ttl: must be",
		`{"data":{"password":"canary","ttl":true}}`:                      "ttl: must be",
		`{"data":{"password":"canary","ttl":1e300}}`:                     "ttl: must be",
		`{"data":null}`:                      "no data",
		`{"data":"canary"}`:                  "no data",
		`{"auth":{"client_token":"canary"}}`: "no data",
		`{"data":{"data":{"password":"canary"},"metadata":{"version":1}}}`: "password: is required",
	} {
		if _, err := parseSource([]byte(body), now); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%.60s: got %v, want %q", body, err, want)
		}
	}
}

func TestMark(t *testing.T) {
	key, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	s := &sourced{username: "u", password: []byte("p")}
	one := mark(key, userID("a"), s)
	if !bytes.Equal(one, mark(key, userID("a"), &sourced{username: "u", password: []byte("p"), rotates: day})) {
		t.Error("the same password has two marks")
	}
	for name, m := range map[string][]byte{
		"key":      mark(other, userID("a"), s),
		"document": mark(key, userID("b"), s),
		"password": mark(key, userID("a"), &sourced{username: "u", password: []byte("q")}),
		"username": mark(key, userID("a"), &sourced{username: "v", password: []byte("p")}),
		"border":   mark(key, userID("a"), &sourced{username: "up", password: nil}),
	} {
		if bytes.Equal(one, m) {
			t.Errorf("another %s has the same mark", name)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	f.Add([]byte(`{"data":{"username":"u","password":"p","ttl":3600,"last_vault_rotation":"2026-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"data":{"password":"p","ttl":"-1h"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := parseSource(body, day)
		if err != nil {
			return
		}
		if !json.Valid(body) || len(s.password) == 0 || len(s.password) > 1024 || !utf8.Valid(s.password) || bytes.ContainsRune(s.password, 0) {
			t.Fatalf("took %q", body)
		}
		if !s.rotates.IsZero() && s.rotates.Before(day) {
			t.Fatalf("rotates at %s", s.rotates)
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	f.Add([]byte(`{"batch_users":{"payroll":7},"policies":{"opcon":3}}`))
	f.Add([]byte(`{"removed":true}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		x := parseIndex(text)
		if x == nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("took %q", text)
		}
		k := knows(userID("a"))
		ids, whole := x.news(k, here)
		if whole && ids != nil {
			t.Fatal("both a part and the whole")
		}
		for _, id := range ids {
			if version, named := x.names[id.Kind].get(id.Name); !isDocument(id) || id.Scope != here || !named || id == userID("a") && version == 3 {
				t.Fatalf("%q hints at %s", text, id)
			}
		}
	})
}

func FuzzSourcePath(f *testing.F) {
	f.Add("ldap/static-cred/u")
	f.Add("ldap/static-cred/../../sys")
	p := prefixes{{"ldap", "static-cred"}}
	f.Fuzz(func(t *testing.T, path string) {
		if p.check(path, "batch") == nil && (!strings.HasPrefix(path, "ldap/static-cred/") || strings.Contains(path, "..") && strings.Contains("/"+path+"/", "/../") || strings.ContainsAny(path, "?#%")) {
			t.Fatalf("took %q", path)
		}
	})
}
