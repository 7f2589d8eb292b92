package gitsync

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	// A fetch adds a pack and a commit of ours some loose objects; nothing
	// repacks them but cloning anew.
	maxPacks = 50
	maxLoose = 5000
)

// Tidy clones the mirror anew beside the present one, and swaps the two, when it
// holds too many packs or loose objects; otherwise it costs a look at two folders.
// Call it after a fetch. Fetch, Publish and View go on meanwhile and wait for the
// swap only. Of several calls at once one does the work.
//
// An error leaves the mirror as it is; it is as good as before, and grows on.
func (r *Repo) Tidy(ctx context.Context) error {
	cause := r.crowded()
	if cause == nil || !r.tidying.TryLock() {
		return nil
	}
	defer r.tidying.Unlock()
	r.log.LogAttrs(ctx, slog.LevelInfo, "cloning the fleet repository", slog.String("why", cause.Error()))
	dir := r.tidyDir()
	defer removeAll(dir)
	if _, err := r.fill(ctx, dir); err != nil {
		return fmt.Errorf("tidy the mirror: %w", err)
	}
	if err := r.acquire(ctx); err != nil {
		return err
	}
	defer r.release()
	if r.crowded() == nil { // healed meanwhile
		return nil
	}
	if err := r.catchUp(ctx, dir); err != nil {
		return fmt.Errorf("tidy the mirror: %w", err)
	}
	if err := r.replace(dir); err != nil {
		return fmt.Errorf("tidy the mirror: %w", err)
	}
	return nil
}

// catchUp brings the clone in dir to where the branch of the mirror is, which may
// have been fetched to meanwhile.
func (r *Repo) catchUp(ctx context.Context, dir string) error {
	present := openStorage(r.opts.Dir, filesystem.Options{})
	defer present.Close()
	head, err := branchHead(present, r.branch)
	if err != nil {
		return err
	}
	st := openStorage(dir, filesystem.Options{})
	defer st.Close()
	if _, err := commitAndTree(st, head.Hash); err == nil {
		return nil
	}
	_, cause, err := r.fetchInto(ctx, dir)
	if cause != nil {
		err = cause
	}
	if err != nil {
		return err
	}
	again := openStorage(dir, filesystem.Options{})
	defer again.Close()
	_, err = commitAndTree(again, head.Hash)
	return err
}

// crowded says why the mirror must not grow further, or nil.
func (r *Repo) crowded() error {
	objects := filepath.Join(r.opts.Dir, "objects")
	packs, _ := filepath.Glob(filepath.Join(objects, "pack", "pack-*.pack"))
	loose, _ := filepath.Glob(filepath.Join(objects, "[0-9a-f][0-9a-f]", "*"))
	if len(packs) > maxPacks || len(loose) > maxLoose {
		return fmt.Errorf("the mirror has %d packs and %d loose objects", len(packs), len(loose))
	}
	return nil
}
