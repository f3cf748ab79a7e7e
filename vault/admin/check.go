package admin

import (
	"encoding/json"
	"fmt"

	"batchwarden/vault/documents"
)

// CheckBatchUser says everything that a machine would refuse in a batch user's
// document, and a password that none would use. No value is quoted: one may be
// the password.
func CheckBatchUser(doc map[string]any) error {
	text, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("%w: not JSON", ErrInvalid) // err may quote a value
	}
	u, _, err := documents.ParseBatchUser(text, "unix")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, given := doc[password]; given {
		switch {
		case u.Kind == "none":
			return fmt.Errorf("%w: password: must not be there with kind none", ErrInvalid)
		case doc["source"] != nil:
			return fmt.Errorf("%w: password: must not be there beside a source", ErrInvalid)
		}
	}
	if u.Source == "" {
		return nil
	}
	if _, err := documents.SourcePath(u.Source); err != nil {
		return fmt.Errorf("%w: source.path: %w", ErrInvalid, err)
	}
	return nil
}
