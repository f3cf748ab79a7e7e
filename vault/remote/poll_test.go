package remote

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"batchwarden/vault/snapshot"
)

func TestParseIndex(t *testing.T) {
	type kinds = map[snapshot.Kind]versions
	users := func(v ...version) kinds { return kinds{snapshot.BatchUserKind: v} }
	for text, want := range map[string]kinds{
		`{}`:                                  {},
		`{"batch_users":{},"policies":{}}`:    {snapshot.BatchUserKind: {}, snapshot.PolicyKind: {}},
		`{"batch_users":{"a":7,"b.c-d_E":0}}`: users(version{"a", 7}, version{"b.c-d_E", 0}),
		`{"batch_users":{ "a" : 7 }}`:         users(version{"a", 7}),
		`{"batch_users":{"a":"7","b":1.5,"c":null,"d":2}}`: users(version{"a", 0}, version{"b", 0}, version{"c", 0}, version{"d", 2}),
		`{"batch_users":{"a,b":7,"c:d":8,"\u0065":9}}`:     users(version{"a,b", 7}, version{"c:d", 8}, version{"e", 9}),
		`{"batch_users":{"b":1,"a":2,"b":3}}`:              users(version{"a", 2}, version{"b", 3}),
		`{"format":1,"removed":false,"x_more":[1]}`:        {},
		``: nil, `null`: nil, `[]`: nil, `{"format":2}`: nil, `{"format":0}`: nil, `{"format":null}`: nil, `{"format":"1"}`: nil,
		`{"removed":null}`: nil, `{"removed":1}`: nil, `{"batch_users":null}`: nil, `{"batch_users":["a"]}`: nil,
	} {
		x := parseIndex([]byte(text))
		if (x == nil) != (want == nil) || x != nil && (x.removed || !maps.EqualFunc(x.names, want, slices.Equal[versions])) {
			t.Errorf("%s: got %+v, want %v", text, x, want)
		}
	}
	for text, want := range map[string]bool{`{"removed":true}`: true, `{"Removed":true}`: false} {
		if x := parseIndex([]byte(text)); x == nil || x.removed != want {
			t.Errorf("%s: got %+v, want removed %v", text, x, want)
		}
	}
}

// FuzzPlainVersions holds the short way against the long one.
func FuzzPlainVersions(f *testing.F) {
	f.Add([]byte(`{"payroll":7,"a.b":0}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, plain := plainVersions(string(text))
		got := map[string]int64{}
		for _, v := range list {
			got[v.name] = v.number
		}
		var want map[string]int64
		if !plain || !json.Valid(text) {
			return // parseIndex has seen that it is JSON
		}
		if err := json.Unmarshal(text, &want); err != nil || !maps.Equal(got, want) || len(list) != len(want) {
			t.Fatalf("%q: got %v, want %v, %v", text, got, want, err)
		}
	})
}
