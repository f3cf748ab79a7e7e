package remote

import (
	"net/http"
	"testing"
	"time"
)

// TestWhatWasReadAhead is taken only where metadata shows the same version.
func TestWhatWasReadAhead(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	of := func(status int, body string) answer { return answer{status: status, body: []byte(body)} }
	const good = `{"data":{"data":{"username":"u"},"metadata":{"version":3,"created_time":"2026-01-02T03:04:05Z"}}}`
	for name, c := range map[string]struct {
		s    sight
		want bool
	}{
		"the same version":    {sight{state: present, version: 3, created: at, data: of(http.StatusOK, good)}, true},
		"metadata is newer":   {sight{state: present, version: 4, created: at, data: of(http.StatusOK, good)}, false},
		"metadata is older":   {sight{state: present, version: 2, created: at, data: of(http.StatusOK, good)}, false},
		"another beginning":   {sight{state: present, version: 3, created: at.Add(1), data: of(http.StatusOK, good)}, false},
		"metadata is refused": {sight{state: forbidden, version: 3, created: at, data: of(http.StatusOK, good)}, false},
		"it is deleted":       {sight{state: gone, version: 3, created: at, data: of(http.StatusOK, good)}, false},
		"data is refused":     {sight{state: present, version: 3, created: at, data: of(http.StatusForbidden, good)}, false},
		"not one of Vault's":  {sight{state: present, version: 3, created: at, data: of(http.StatusOK, `{"data":{}}`)}, false},
		"not asked for":       {sight{state: present, version: 3, created: at}, false},
	} {
		if _, got := c.s.taken(); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
