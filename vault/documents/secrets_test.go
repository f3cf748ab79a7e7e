package documents

import (
	"testing"

	"batchwarden/platform/secret/secrettest"
)

func TestSecretsAreNotShown(t *testing.T) { secrettest.Mute(t, fields{}) }
