// Package secrettest holds types against the promise of package secret: it fills every member of them with a canary and
// looks for that in whatever a program can print of them.
package secrettest

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"unsafe"
)

// canary is as long as a key.
const canary = "c4n4ryJqX7wTz2LkVb9RmPd6Hs0GfYeU"

// Mute fails the test for each value whose type shows what is in it when it is printed, logged or encoded.
func Mute(t *testing.T, values ...any) {
	t.Helper()
	each(t, values, true)
}

// Quiet is Mute for types that are encoded on purpose, and otherwise show nothing.
func Quiet(t *testing.T, values ...any) {
	t.Helper()
	each(t, values, false)
}

func each(t *testing.T, values []any, encoders bool) {
	t.Helper()
	for _, v := range values {
		t.Run(strings.TrimPrefix(fmt.Sprintf("%T", v), "*"), func(t *testing.T) {
			if err := check(v, encoders); err != nil {
				t.Error(err)
			}
		})
	}
}

// check says where a canary shows that fills a value of that type.
func check(v any, encoders bool) error {
	kind := reflect.TypeOf(v)
	p := reflect.New(kind)
	if fill(p.Elem(), 0) == 0 {
		return fmt.Errorf("%s has no room for a secret", kind)
	}
	if !shows(all(p.Elem())) {
		return fmt.Errorf("%s: the canary was not put in, or is not found: the test would see nothing", kind)
	}
	var errs []error
	for way, text := range ways(p.Elem().Interface(), p.Interface(), encoders) {
		if shows(text) {
			errs = append(errs, fmt.Errorf("%s shows its secret by %s: %.200q", kind, way, text))
		}
	}
	return errors.Join(errs...)
}

// ways are all that a value and a pointer to it print.
func ways(v, p any, encoders bool) map[string]string {
	out := map[string]string{}
	of := func(v any) []any { // v as others hold it
		return []any{v, []any{v}, map[string]any{"k": v}, struct{ V any }{v}, &struct{ V any }{v}}
	}
	for _, x := range append(of(v), of(p)...) {
		for verb := 'A'; verb <= 'z'; verb++ {
			if verb == 'p' || verb == 'w' {
				continue // fmt asks nobody for these two; go vet refuses them for what is no pointer and no error
			}
			for _, flags := range []string{"", "+", "#", " "} {
				format := "%" + flags + string(verb)
				out[format] += fmt.Sprintf(format, x)
			}
		}
		out["Sprint"] += fmt.Sprint(x)
		err := fmt.Errorf("with %v: %w", x, io.EOF)
		out["an error"] += fmt.Sprintf("%v %+v %#v", err, errors.Join(err, io.EOF), err)
		out["slog text"] += logged(func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) }, x)
	}
	for _, x := range []any{v, p} {
		out["slog JSON"] += logged(func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) }, x)
	}
	if !encoders {
		return out
	}
	for _, x := range append(of(v), of(p)...) {
		out["slog JSON"] += logged(func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) }, x)
		text, err := json.Marshal(x)
		out["encoding/json"] += fmt.Sprintf("%s %v", text, err)
		text, err = xml.Marshal(x)
		out["encoding/xml"] += fmt.Sprintf("%s %v", text, err)
		var b bytes.Buffer
		err = gob.NewEncoder(&b).Encode(x)
		out["encoding/gob"] += fmt.Sprintf("%s %v", &b, err)
	}
	return out
}

func logged(handler func(io.Writer) slog.Handler, v any) string {
	var b strings.Builder
	slog.New(handler(&b)).Info("m", "v", v, slog.Group("g", "v", v))
	return b.String()
}

// shows reports whether eight octets of the canary in a row are in the text, as they are or as numbers.
func shows(text string) bool {
	for i := range len(canary) - 7 {
		part := canary[i : i+8]
		numbers := strings.Trim(fmt.Sprint([]byte(part)), "[]")
		for _, form := range []string{part, fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), fmt.Sprintf("% x", part), fmt.Sprintf("% X", part),
			numbers, strings.ReplaceAll(numbers, " ", ","), strings.Trim(fmt.Sprintf("%#v", []byte(part)), "[]byte{}")} {
			if strings.Contains(text, form) {
				return true
			}
		}
	}
	for _, form := range []string{"YzRuNHJ5", "Y2FuYXJ5", "RuNHJ5SnFY", "NG40cnlKcVg3d1R6"} { // of base64
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// depth is how far fill follows pointers and members.
const depth = 5

// fill puts the canary wherever the value takes text or octets, members that are not exported too, and returns how
// often. It leaves other people's types alone.
func fill(v reflect.Value, deep int) (n int) {
	if deep > depth {
		return 0
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(canary)
		return 1
	case reflect.Array:
		for i := range v.Len() {
			if v.Index(i).Kind() == reflect.Uint8 {
				v.Index(i).SetUint(uint64(canary[i%len(canary)]))
				n = 1
			} else {
				n += fill(v.Index(i), deep+1)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(canary))
			return 1
		}
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		return fill(v.Index(0), deep+1)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		n = fill(key, deep+1) + fill(value, deep+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Interface:
		if v.NumMethod() == 0 {
			v.Set(reflect.ValueOf(canary))
			n = 1
		}
	case reflect.Pointer:
		if ours(v.Type().Elem()) {
			v.Set(reflect.New(v.Type().Elem()))
			n = fill(v.Elem(), deep+1)
		}
	case reflect.Struct:
		if !ours(v.Type()) {
			return 0
		}
		for i := range v.NumField() {
			member := v.Field(i)
			n += fill(reflect.NewAt(member.Type(), unsafe.Pointer(member.UnsafeAddr())).Elem(), deep+1)
		}
	}
	return n
}

// ours reports a type of this module, or one without a name.
func ours(t reflect.Type) bool {
	return t.PkgPath() == "" || strings.HasPrefix(t.PkgPath(), "batchwarden/")
}

// all is what a value holds, read past all of its methods.
func all(v reflect.Value) string {
	var b strings.Builder
	var walk func(v reflect.Value, deep int)
	walk = func(v reflect.Value, deep int) {
		if deep > depth {
			return
		}
		switch v.Kind() {
		case reflect.String:
			b.WriteString(v.String() + "\n")
		case reflect.Uint8:
			b.WriteByte(byte(v.Uint()))
		case reflect.Array, reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i), deep+1)
			}
		case reflect.Map:
			for _, k := range v.MapKeys() {
				walk(k, deep+1)
				walk(v.MapIndex(k), deep+1)
			}
		case reflect.Pointer, reflect.Interface:
			if !v.IsNil() {
				walk(v.Elem(), deep+1)
			}
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i), deep+1)
			}
		}
	}
	walk(v, 0)
	return b.String()
}
