package remote

import (
	"testing"

	"batchwarden/platform/secret/secrettest"
)

func TestSecretsAreNotShown(t *testing.T) {
	secrettest.Mute(t, auth{}, keep{}, wrapped{}, login{}, client{}, answer{}, run{}, Source{}, document{}, sourced{}, sight{}, view{}, caller{})
	// These are encoded: to be sealed.
	secrettest.Quiet(t, session{}, kept{}, unwrapped{})
}
