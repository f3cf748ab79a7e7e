package policy

import (
	"errors"
	"fmt"
)

// A Grantee is whom a right is given to or taken from: one member is set.
type Grantee struct {
	Role  string `json:"role,omitempty"`
	User  string `json:"user,omitempty"`
	Group string `json:"group,omitempty"`
}

func (g Grantee) String() string {
	kind, name := g.named()
	return fmt.Sprintf("%s %q", kind, name)
}

func (g Grantee) named() (kind, name string) {
	switch {
	case g.Role != "":
		return "role", g.Role
	case g.Group != "":
		return "group", g.Group
	}
	return "user", g.User
}

// ErrGrantee reports that the model gives rights to somebody else than to
// such a grantee.
var ErrGrantee = errors.New("cannot be a grantee")

// ErrUnknownGrantee reports that the document does not have the grantee.
var ErrUnknownGrantee = errors.New("is not in the document")

// A BarError says that no grant helps, by which rule, and where in the document.
type BarError struct {
	Rule  string
	Place string
	Text  string
}

func (e *BarError) Error() string {
	text := e.Text
	if e.Place != "" {
		text = e.Place + ": " + text
	}
	return text + " (" + e.Rule + ")"
}

// An Edit is a document after a change, and what the change was. Without
// Changes the document is as it was.
type Edit struct {
	Text    []byte
	Changes []string // in words, with their places
	Already []string // of Grant without Changes: by what the grantee has the right
	Still   []string // of Revoke: by what the grantee has the right nevertheless
}

// A Draft is an Edit that a Granter is making.
type Draft struct {
	Text *Text
	Edit Edit
	to   Grantee
}

// NewDraft begins with the document as it is, for one grantee's sake.
func NewDraft(doc []byte, to Grantee) Draft { return Draft{NewText(doc), Edit{Text: doc}, to} }

// Path is the place of the grantee in the Text, or of what more names in it.
func (d *Draft) Path(more ...any) []any {
	kind, name := d.to.named()
	return append([]any{kind + "s", name}, more...)
}

// Place is Path in words.
func (d *Draft) Place() string {
	kind, name := d.to.named()
	return kind + "s." + name
}

// Known is ErrUnknownGrantee, wrapped, where the document does not have the grantee.
func (d *Draft) Known() error {
	if !d.Text.Has(d.Path()...) {
		return fmt.Errorf("%v %w", d.to, ErrUnknownGrantee)
	}
	return nil
}

// Changed notes what was changed, in words.
func (d *Draft) Changed(format string, args ...any) {
	d.Edit.Changes = append(d.Edit.Changes, fmt.Sprintf(format, args...))
}

// Done returns what came of it. The model parses it first, so that nothing faulty leaves.
func (d *Draft) Done(m Model) (Edit, error) {
	d.Edit.Text = d.Text.Bytes()
	if _, err := m.Parse("", d.Edit.Text); err != nil {
		return Edit{}, err
	}
	return d.Edit, nil
}

// A Granter is a Model that gives and takes the right to use a batch user in
// a document. The documents are JSON and have been parsed; the results are
// parsed too before they are returned.
type Granter interface {
	// Grant returns doc with what the grantee lacks to use b, and nothing
	// else. A grantee that the document does not know is made when make says
	// so. The error is ErrGrantee or ErrUnknownGrantee, wrapped, a
	// *BarError, or says what of b cannot be written in a document.
	Grant(doc []byte, to Grantee, b BatchUser, make bool) (Edit, error)
	// Revoke returns doc without what the document gives the grantee itself
	// for b by name. What it has by other ways is left, and named in Still.
	Revoke(doc []byte, from Grantee, b BatchUser) (Edit, error)
}
