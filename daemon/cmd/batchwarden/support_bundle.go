package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// bundle is the files of a support bundle, in memory until all of them are known: names that are to be hidden may come
// late.
type bundle struct {
	at      time.Time
	files   []bundled
	missing []string
	names   []string // of controllers' users
}

type bundled struct{ name, text string }

func (b *bundle) add(name, text string) { b.files = append(b.files, bundled{name, text}) }

// miss says why something is not there.
func (b *bundle) miss(name string, err error) {
	b.missing = append(b.missing, name+": "+strings.ReplaceAll(err.Error(), "\n", "; "))
}

// name notes a user of a controller.
func (b *bundle) name(user string) {
	if user != "" && !slices.Contains(b.names, user) {
		b.names = append(b.names, user)
	}
}

// rename gives the users other names, in all files and in what is missing.
func (b *bundle) rename() {
	slices.Sort(b.names)
	other := map[string]string{}
	var forms []string
	for i, name := range b.names {
		for _, form := range writtenAs(name) {
			if other[form] == "" {
				other[form] = fmt.Sprintf("subject-%d", i+1)
				forms = append(forms, regexp.QuoteMeta(form))
			}
		}
	}
	if len(forms) == 0 {
		return
	}
	slices.SortFunc(forms, func(x, y string) int { return len(y) - len(x) }) // JDOE/DEPT before JDOE
	// A name inside of a word is another word.
	find := regexp.MustCompile(`(^|[^\pL\pN_])(` + strings.Join(forms, "|") + `)($|[^\pL\pN_])`)
	hide := func(text string) string {
		for range 2 { // the character between two names belongs to one of the finds only
			text = find.ReplaceAllStringFunc(text, func(found string) string {
				m := find.FindStringSubmatch(found)
				return m[1] + other[m[2]] + m[3]
			})
		}
		return text
	}
	for i := range b.files {
		b.files[i].text = hide(b.files[i].text)
	}
	for i := range b.missing {
		b.missing[i] = hide(b.missing[i])
	}
}

// writtenAs is a name as texts and JSON write it.
func writtenAs(name string) []string {
	forms := []string{name}
	if quoted, err := json.Marshal(name); err == nil {
		forms = append(forms, string(quoted[1:len(quoted)-1]))
	}
	return append(forms, strings.Trim(fmt.Sprintf("%q", name), `"`))
}

func (b *bundle) readme() string {
	var t strings.Builder
	fmt.Fprintf(&t, "A support bundle of batchwarden, made %s by uid %d.\n", b.at.UTC().Format(time.RFC3339), os.Geteuid())
	t.WriteString("No password, token or key is in it: of files that hold one there are name, owner, mode and size.\n")
	if len(b.missing) > 0 {
		t.WriteString("\nWhat is not in it, and why:\n")
		for _, m := range b.missing {
			t.WriteString("  " + m + "\n")
		}
	}
	return t.String()
}

// write makes the file, for the caller alone. One that is there already is left alone.
func (b *bundle) write(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path)) // half a bundle
		}
	}()
	zipped := gzip.NewWriter(f)
	packed := tar.NewWriter(zipped)
	for _, file := range append([]bundled{{"README.txt", b.readme()}}, b.files...) {
		head := tar.Header{Name: "batchwarden-support/" + file.name, Mode: 0o600, Size: int64(len(file.text)), ModTime: b.at, Format: tar.FormatPAX}
		if err := packed.WriteHeader(&head); err != nil {
			return err
		}
		if _, err := packed.Write([]byte(file.text)); err != nil {
			return err
		}
	}
	return errors.Join(packed.Close(), zipped.Close(), f.Sync())
}
