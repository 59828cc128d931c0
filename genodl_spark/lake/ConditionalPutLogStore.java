package genodl;

import io.delta.storage.HadoopFileSystemLogStore;
import java.io.ByteArrayOutputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InterruptedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.util.Arrays;
import java.util.Iterator;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FSDataOutputStream;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.fs.s3a.S3AFileSystem;
import org.apache.hadoop.fs.s3a.S3AUtils;
import org.apache.hadoop.fs.s3a.impl.PutObjectOptions;
import software.amazon.awssdk.awscore.exception.AwsServiceException;
import software.amazon.awssdk.core.exception.SdkException;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.model.DeleteObjectRequest;
import software.amazon.awssdk.services.s3.model.PutObjectRequest;
import software.amazon.awssdk.utils.IoUtils;

/**
 * Delta's log on an object store of S3's protocol: an entry is put there on condition that there is none
 * (If-None-Match: *), so that of two drivers which commit the same version the store itself lets one through.
 *
 * Every commit of a lake on s3a:// goes this way, whichever part of Delta makes it. The first of a process is
 * preceded by a trial, as a store that does not know the condition answers as if it did. The client, its credentials
 * and its encryption are those of Hadoop's S3A.
 *
 * Janino compiles this file, on machines that have no other compiler: no lambdas, no inferred types.
 */
public class ConditionalPutLogStore extends HadoopFileSystemLogStore {
    private static final int ATTEMPTS = 8;
    private static final long PAUSE_MS = 100;
    private static final int REFUSED = 412;
    private static final int CONTENDED = 409; // a delete or another put of the key was under way: nothing is decided

    private static final Set<String> TRIED = ConcurrentHashMap.newKeySet();

    public ConditionalPutLogStore(Configuration configuration) {
        super(configuration);
    }

    @Override
    public void write(Path path, Iterator<String> actions, Boolean overwrite, Configuration configuration)
            throws IOException {
        S3AFileSystem files = (S3AFileSystem) path.getFileSystem(configuration);
        ByteArrayOutputStream text = new ByteArrayOutputStream();
        while (actions.hasNext()) {
            text.write(((String) actions.next()).getBytes(StandardCharsets.UTF_8));
            text.write('\n');
        }
        byte[] content = text.toByteArray();
        if (overwrite.booleanValue()) {
            FSDataOutputStream stream = files.create(path, true);
            stream.write(content);
            stream.close();
            return;
        }
        if (!TRIED.contains(files.getUri().toString())) {
            tryConditions(files, path.getParent());
            TRIED.add(files.getUri().toString());
        }
        if (!put(files, path, content)) {
            throw new FileAlreadyExistsException(path.toString());
        }
    }

    /** A put is seen whole or not at all. */
    @Override
    public Boolean isPartialWriteVisible(Path path, Configuration configuration) {
        return Boolean.FALSE;
    }

    /**
     * Puts an object where there is none; whether it did.
     *
     * An attempt whose answer was lost is made again, by the client or here, and then finds what it has put itself: so
     * after a refusal the object's bytes decide. Those of an entry are nobody else's, as Delta gives each transaction
     * an identifier of its own.
     */
    private static boolean put(S3AFileSystem files, Path path, byte[] content) throws IOException {
        for (int attempt = 1; ; attempt++) {
            try {
                putOnce(files, path, content);
                return true;
            } catch (AwsServiceException error) {
                if (error.statusCode() == REFUSED) {
                    return Arrays.equals(content, stored(files, path));
                }
                if (attempt == ATTEMPTS || (error.statusCode() != CONTENDED && error.statusCode() < 500)) {
                    throw S3AUtils.translateException("put of a commit", path, error);
                }
            } catch (SdkException error) {
                if (attempt == ATTEMPTS) {
                    throw S3AUtils.translateException("put of a commit", path, error);
                }
            }
            try {
                Thread.sleep(PAUSE_MS * attempt);
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
                throw new InterruptedIOException("interrupted while a commit was put: " + path);
            }
        }
    }

    private static void putOnce(S3AFileSystem files, Path path, byte[] content) {
        PutObjectRequest.Builder request = files.getRequestFactory().newPutObjectRequestBuilder(
            files.pathToKey(path), PutObjectOptions.keepingDirs(), content.length, false);
        request.ifNoneMatch("*");
        client(files).putObject((PutObjectRequest) request.build(), RequestBody.fromBytes(content));
    }

    private static S3Client client(S3AFileSystem files) {
        return files.getS3AInternals().getAmazonS3Client("a commit of Delta");
    }

    /** An object's bytes; none where there is none any more. */
    private static byte[] stored(S3AFileSystem files, Path path) throws IOException {
        FSDataInputStream stream = null;
        try {
            stream = files.open(path);
            return IoUtils.toByteArray(stream);
        } catch (FileNotFoundException error) {
            return new byte[0];
        } finally {
            if (stream != null) {
                stream.close();
            }
        }
    }

    /** IOException where a second put of one object is not refused: there one of two drivers would undo the other. */
    private static void tryConditions(S3AFileSystem files, Path folder) throws IOException {
        Path path = new Path(folder, ".conditional-put-" + UUID.randomUUID());
        boolean first;
        boolean second;
        try {
            first = put(files, path, new byte[] {1});
            second = put(files, path, new byte[] {2});
        } finally {
            try {
                DeleteObjectRequest.Builder request = files.getRequestFactory().newDeleteObjectRequestBuilder(
                    files.pathToKey(path));
                client(files).deleteObject((DeleteObjectRequest) request.build());
            } catch (SdkException error) {
                // It stands in nobody's way.
            }
        }
        if (!first || second) {
            throw new IOException("found that the object store of " + files.getUri()
                + " puts objects whatever If-None-Match says; expected one with conditional puts, as two runs that"
                + " commit at the same time would lose rows here");
        }
    }
}
