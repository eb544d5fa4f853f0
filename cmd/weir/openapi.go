package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/weirmesh/weir/resource"
	"github.com/weirmesh/weir/resource/manifest"
)

// takeDocuments puts into Contracts the OpenAPI documents that their files name,
// which are found beside those.
func takeDocuments(items []manifest.Item) error {
	var problems manifest.Problems
	for _, item := range items {
		spec := item.Resource.GetContract().GetSpec()
		if spec.GetOpenapiFile() == "" {
			continue
		}
		text, err := readDocument(item.File, spec.GetOpenapiFile())
		if err != nil {
			problems = append(problems, item.Problem("spec.openapiFile", err.Error()))
			continue
		}
		spec.Openapi, spec.OpenapiFile = text, ""
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// readDocument reads a file that another names, beside itself.
func readDocument(beside, name string) (string, error) {
	if !filepath.IsAbs(name) && beside != "<stdin>" {
		name = filepath.Join(filepath.Dir(beside), name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	return readText(f, name)
}

func readText(in io.Reader, name string) (string, error) {
	text, err := io.ReadAll(io.LimitReader(in, resource.MaxContract+1))
	if err != nil {
		return "", fmt.Errorf("cannot be read: %w", err)
	}
	if len(text) > resource.MaxContract {
		return "", fmt.Errorf("%s is longer than %d KiB", name, resource.MaxContract>>10)
	}
	return string(text), nil
}
