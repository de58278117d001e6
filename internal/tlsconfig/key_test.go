package tlsconfig

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
)

func FuzzDecryptKey(f *testing.F) {
	files, err := filepath.Glob("testdata/aes*.pem")
	if err != nil || len(files) == 0 {
		f.Fatal("no keys in testdata", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		block, _ := pem.Decode(data)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		data := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})
		if clear, err := decryptKey(data, "x"); err == nil && len(clear) == 0 {
			t.Error("neither key nor error")
		}
	})
}
