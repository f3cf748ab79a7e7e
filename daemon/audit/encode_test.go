package audit

import (
	"fmt"
	"reflect"
	"testing"
	"time"
)

// fillAll sets everything in v that can be set, each time to another value.
func fillAll(t *testing.T, v reflect.Value, n *int) {
	t.Helper()
	*n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(int64(*n), 120_000_000).UTC()))
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillAll(t, v.Elem(), n)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fillAll(t, v.Field(i), n)
		}
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fillAll(t, v.Index(0), n)
		fillAll(t, v.Index(1), n)
	case v.Kind() == reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{fmt.Sprint("K", *n): "v"}))
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt():
		v.SetInt(int64(*n))
	case v.CanUint():
		v.SetUint(uint64(*n))
	default:
		t.Fatalf("%s: not known here", v.Type())
	}
}

// TestEncoding: a record is written as encoding/json would write it, whichever of its members there are.
func TestEncoding(t *testing.T) {
	same := func(name string, r *Record) {
		t.Helper()
		want, wantErr := encoded(r)
		got, err := r.appendTo(nil)
		if (err == nil) != (wantErr == nil) {
			t.Errorf("%s: error %v, want %v", name, err, wantErr)
			return
		}
		if err == nil && string(object(got, 0)) != string(want) {
			t.Errorf("%s:\ngot  %s\nwant %s", name, object(got, 0), want)
		}
	}
	var full Record
	n := 0
	fillAll(t, reflect.ValueOf(&full).Elem(), &n)
	same("everything", &full)
	same("nothing", new(Record))
	for i := range reflect.TypeFor[Record]().NumField() {
		field := reflect.TypeFor[Record]().Field(i)
		without, only, empty := full, Record{}, Record{}
		reflect.ValueOf(&without).Elem().Field(i).SetZero()
		same("without "+field.Name, &without)
		reflect.ValueOf(&only).Elem().Field(i).Set(reflect.ValueOf(full).Field(i))
		same("only "+field.Name, &only)
		if field.Type.Kind() == reflect.Pointer {
			reflect.ValueOf(&empty).Elem().Field(i).Set(reflect.New(field.Type.Elem()))
			same("an empty "+field.Name, &empty)
		}
	}
	for c := range rune(0x180) {
		same(fmt.Sprintf("%U", c), &Record{Reason: "a" + string(c) + "b", Withheld: []string{string(c)}, Subject: &Subject{Roles: []string{"", string(c)}}})
	}
	for _, text := range []string{"\xff", "a\xc3", "\u2028\u2029", "<&>", "\U0001F600", "\xed\xa0\x80", `"\`, "\x7f"} {
		same(fmt.Sprintf("%q", text), &Record{Kind: text, Realm: text})
	}
	same("a year that is none", &Record{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)})
	same("a time with its zone", &Record{Time: time.Date(2026, 1, 1, 0, 0, 0, 1, time.FixedZone("", 3600))})
}
