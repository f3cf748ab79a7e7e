package admin

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	maxText = 256  // octets of a name of an account and the like
	maxLong = 1024 // of what a realm calls something, and of a path
	maxList = 1000 // members or elements
)

// CheckBatchUser says everything that a machine would refuse in a batch user's
// document. No value is quoted: one may be the password.
func CheckBatchUser(doc map[string]any) error {
	c := checker{doc: doc}
	c.text("username", maxText)
	c.text("domain", maxText)
	c.text("group", maxText)
	c.text("pam", maxText)
	c.word("platform", platforms...)
	c.word("kind", password, "none")
	c.flag("launch")
	c.flag("retrieve")
	c.parsed("max_stale", "a duration like 72h", func(s string) error {
		d, err := time.ParseDuration(s)
		if err == nil && d <= 0 {
			err = errors.ErrUnsupported
		}
		return err
	})
	c.parsed("expires", "a time like 2027-01-01T00:00:00Z", func(s string) error {
		_, err := time.Parse(time.RFC3339, s)
		return err
	})
	c.format()
	c.names()
	c.services()
	c.source()
	if s, _ := doc["username"].(string); s == "" {
		c.fault("username", "is required")
	}
	c.password()
	for name := range doc {
		if !slices.Contains(known, name) && !strings.HasPrefix(name, "x_") {
			c.fault(name, "unknown member")
		}
	}
	if len(c.faults) == 0 {
		return nil
	}
	slices.Sort(c.faults)
	return fmt.Errorf("%w: %s", ErrInvalid, strings.Join(c.faults, "; "))
}

var known = []string{"format", "username", "domain", "group", "platform", "kind", password, "names", "services",
	"launch", "retrieve", "pam", "max_stale", "expires", "source"}

type checker struct {
	doc    map[string]any
	faults []string
}

func (c *checker) fault(name, format string, args ...any) {
	c.faults = append(c.faults, strconv.Quote(name)+" "+fmt.Sprintf(format, args...))
}

func (c *checker) text(name string, most int) string {
	v, given := c.doc[name]
	if !given {
		return ""
	}
	return c.checked(name, v, most)
}

func (c *checker) checked(name string, v any, most int) string {
	s, ok := v.(string)
	switch {
	case !ok:
		c.fault(name, "must be a string")
	case len(s) > most:
		c.fault(name, "is longer than %d octets", most)
	case strings.ContainsFunc(s, unicode.IsControl):
		c.fault(name, "contains a control character")
	default:
		return s
	}
	return ""
}

func (c *checker) word(name string, of ...string) {
	if s := c.text(name, maxText); s != "" && !slices.Contains(of, s) {
		c.fault(name, "must be one of %s", strings.Join(of, ", "))
	}
}

func (c *checker) flag(name string) {
	if v, given := c.doc[name]; given {
		if _, ok := v.(bool); !ok {
			c.fault(name, "must be true or false")
		}
	}
}

func (c *checker) parsed(name, what string, parse func(string) error) {
	if s := c.text(name, maxText); s != "" && parse(s) != nil {
		c.fault(name, "must be %s", what)
	}
}

func (c *checker) format() {
	v, given := c.doc["format"]
	if text, isText := v.(string); given && (isText || fmt.Sprint(v) != "1") {
		c.fault("format", "must be the number 1, not %.20q", cmp.Or(text, fmt.Sprint(v)))
	}
}

// object is a member that must be an object, without what is other people's.
func (c *checker) object(name string) map[string]any {
	v, given := c.doc[name]
	if !given {
		return nil
	}
	o, ok := v.(map[string]any)
	if !ok {
		c.fault(name, "must be an object")
		return nil
	}
	if len(o) > maxList {
		c.fault(name, "has more than %d members", maxList)
		return nil
	}
	o = maps.Clone(o)
	maps.DeleteFunc(o, func(n string, _ any) bool { return strings.HasPrefix(n, "x_") })
	return o
}

func (c *checker) names() {
	for realm, v := range c.object("names") {
		c.checked("names."+realm, v, maxLong)
	}
}

func (c *checker) services() {
	for realm, v := range c.object("services") {
		list, ok := v.([]any)
		if !ok || len(list) > maxList {
			c.fault("services."+realm, "must be a list of at most %d strings", maxList)
			continue
		}
		for _, e := range list {
			c.checked("services."+realm, e, maxLong)
		}
	}
}

// source is a path elsewhere in Vault. Whether it lies below a prefix that is
// allowed, each machine's configuration says.
func (c *checker) source() {
	o := c.object("source")
	if o == nil {
		return
	}
	for name := range o {
		if name != "path" {
			c.fault("source."+name, "unknown member")
		}
	}
	path := c.checked("source.path", o["path"], maxLong)
	elements := strings.Split(path, "/")
	switch {
	case path == "":
		c.fault("source.path", "is required")
	case slices.Contains(elements, ""), slices.Contains(elements, "."), slices.Contains(elements, ".."), strings.ContainsAny(path, "?#*+%\\"):
		c.fault("source.path", "must be a path like ldap/static-cred/payroll")
	case slices.Contains([]string{"sys", "auth", "identity", "cubbyhole"}, strings.ToLower(elements[0])):
		c.fault("source.path", "must not be Vault's own")
	}
}

func (c *checker) password() {
	v, given := c.doc[password]
	s, ok := v.(string)
	switch {
	case given && c.doc["kind"] == "none":
		c.fault(password, "must not be there with kind none")
	case given && c.doc["source"] != nil:
		c.fault(password, "must not be there beside a source")
	case given && !ok:
		c.fault(password, "must be a string")
	case given:
		if err := CheckPassword([]byte(s)); err != nil {
			c.fault(password, "%s", strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": "))
		}
	case c.doc["kind"] != "none" && c.doc["source"] == nil:
		c.fault(password, "is required")
	}
}
