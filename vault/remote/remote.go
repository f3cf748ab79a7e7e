// Package remote reads from a Vault server what one machine is entitled to.
//
// It is the sync worker's: tokens, TLS and plaintext JSON pass through ordinary
// memory here, and the process that imports it ends when its errand is done. It
// brings what is newer than what the daemon knows, sealed, and says what is
// gone; when in doubt it says that it does not know, and nothing is removed.
//
// A poll asks for the metadata of each scope's index, and for nothing else while
// that has not changed. An index that has is read, and exactly the documents are
// looked at whose versions it gives differently. It only makes us look sooner:
// which version is in force says the metadata, and what is gone says a sweep,
// which lists every scope and looks at everything known. A scope whose index
// does not name all that is known is swept at once; one without an index in
// every run, if it is small. What is not known is read without a look before.
//
// A right that is taken from a document's metadata shows as a 403; one that is
// taken from the data alone is asked for in sweeps, of large scopes in part.
//
// A batch user may name a source, a path of another engine below one of the
// configured prefixes, where username, password and ttl are read. The document
// stays a document of the scope; its password gets a turn of its own, one more
// whenever another one lies there. Whether it is another is told by a mark: a
// MAC under a key that only workers see, over document, username and password.
//
// At most 20,000 documents are taken for a machine. The rest of a scope that
// holds more is left out and said, and what was taken goes on being confirmed.
//
// A policy document over what Vault takes in one entry lies there in parts: a
// head {"format":1,"model":M,"encoding":"gzip+base64","parts":[{"version":V,
// "sha256":S},…]}, and for each part N, from 1, the document REALM.parts/N
// {"data":D}. D is base64 of a piece of the gzip stream, S the sum of that piece
// in hex, V the part's version in Vault.
package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"batchwarden/platform/secret"
	"batchwarden/vault/documents"
	"batchwarden/vault/errand"
)

// Config says where the server is and who asks.
type Config struct {
	Machine   string
	Platforms []string // the first is the default of documents that name none
	Groups    []string

	Address    string // https://host:port
	CAFile     string // empty: the system's
	ServerName string // empty: the address's
	Namespace  string
	Mount      string   // of the KV v2 engine
	Sources    []string // below these paths may lie what a document's source names; none by default
	Auth       Auth
}

// Source reads one server for one machine.
type Source struct {
	secret.Mute
	conf    Config
	tls     *tls.Config
	login   login
	scopes  []string // nearest first
	sources prefixes
}

// New reads every file that c names; afterwards none is needed. An error is the
// machine's own set-up at fault, and wraps errors.ErrUnsupported where c asks
// for what does not exist yet.
func New(c Config) (*Source, error) {
	for _, n := range append(append([]string{c.Machine}, c.Groups...), c.Platforms...) {
		if !documents.GoodName(n) {
			return nil, fmt.Errorf("remote: %q is not a name of a machine, group or platform", n)
		}
	}
	if len(c.Platforms) == 0 || c.Mount == "" || c.Address == "" {
		return nil, errors.New("remote: address, mount and platform are required")
	}
	s := &Source{conf: c, tls: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}}
	s.scopes = append(s.scopes, "machines/"+c.Machine)
	for _, g := range c.Groups {
		s.scopes = append(s.scopes, "groups/"+g)
	}
	for _, p := range c.Platforms {
		s.scopes = append(s.scopes, "platforms/"+p)
	}
	if c.CAFile != "" {
		text, err := readFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM([]byte(text)) {
			return nil, fmt.Errorf("remote: %q holds no certificate", c.CAFile)
		}
	}
	var err error
	if s.sources, err = readPrefixes(c.Sources, c.Mount); err != nil {
		return nil, err
	}
	if s.login, err = readLogin(c); err != nil {
		return nil, err
	}
	if s.login.pair != nil {
		s.tls.Certificates = []tls.Certificate{*s.login.pair}
	}
	return s, nil
}

// Unable is the report of a worker whose New returned err. What was kept for it
// is kept for the next one.
func Unable(err error) *errand.Report {
	return &errand.Report{Code: errand.Setup, Detail: clean(err.Error()), KeepToken: true}
}
