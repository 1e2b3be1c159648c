"""What holds for the model of the record that this repository comes with: replace these tests with the model."""
