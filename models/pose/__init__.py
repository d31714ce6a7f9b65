"""What happens to detected poses before anything is built on them: one person, left and right put right."""
